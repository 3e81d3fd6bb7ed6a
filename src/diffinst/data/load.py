"""Loads an annotated split, whatever the layout of its folder."""

from __future__ import annotations

from pathlib import Path

from diffinst.data import coco
from diffinst.data.split import Split


def load_split(root: str | Path, split: str, *, single_class: bool = False) -> Split:
    """Read and check one split; no picture is opened and no mask is drawn.

    Args:
        root: The dataset's folder.
        split: "train", "val", ...
        single_class: Take all classes as one, named "object".

    Raises:
        DatasetError: Something is missing, of a wrong type, ambiguous or refers to nothing.
    """
    loaded = coco.load_split(root, split)
    return loaded.merged() if single_class else loaded
