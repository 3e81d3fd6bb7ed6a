"""Gives the entries of an annotation file as COCO's, whichever tool it is of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffinst.datasets import cvat, labelme
from diffinst.datasets.coco_entries import DECODERS
from diffinst.datasets.json_stream import entries
from diffinst.datasets.problems import Problems
from diffinst.datasets.shapes import TABLES, Listed

SHAPE = "COCO files are an object with lists 'images', 'annotations', 'categories'"


def listed(
    file: Path, problems: Problems, rest: dict[str, object] | None = None, *, raw: bool
) -> Iterator[Listed]:
    """Go through the entries of a file; see `json_stream.entries`.

    Args:
        file: COCO or LVIS json, CVAT's XML, or a folder of LabelMe's files.
        problems: Gets what is wrong with shapes that are no entries yet.
        rest: Gets the other keys of a json.
        raw: Entries of a json come as they stand there; else sound ones come decoded.
    """
    if file.suffix == ".xml":
        return cvat.entries(file, problems)
    if file.is_dir():
        return labelme.entries(file, problems)
    return entries(file, TABLES, SHAPE, rest, {} if raw else DECODERS)


def refuse_boxes(file: Path, problems: Problems) -> None:
    """Refuse a file of which no annotation has a mask: that is not the fault of one of them."""
    count = 0
    for table, position, entry in listed(file, problems, raw=True):
        if table == "annotations" and position >= 0:
            if not isinstance(entry, dict) or entry.get("segmentation"):
                return
            count += 1
    problems.note("boxes-only", count=count)
