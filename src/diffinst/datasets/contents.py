"""What an annotation file says, before its images were looked for."""

from __future__ import annotations

from dataclasses import dataclass

from diffinst.datasets.packed import Packed


@dataclass(frozen=True, eq=False)
class Contents:
    """What an annotation file says.

    Attributes:
        packed: Its images and objects.
        classes: Names by label.
        category_ids: The file's ids by label.
        federated: Not every class was looked for on every image (LVIS).
        frequency: "r", "c" or "f" by label, or empty.
        left_out: Objects that were left out, one line for each reason.
        notes: What else its user should know.
    """

    packed: Packed
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    federated: bool = False
    frequency: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
