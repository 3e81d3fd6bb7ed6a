"""Which things can be wrong with a dataset, how bad is each, and what helps?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import Kind, Kinds
from diffinst.datasets.doctor.said_of_entries import ENTRIES
from diffinst.datasets.doctor.said_of_images import IMAGES
from diffinst.datasets.doctor.said_of_labels import LABELS
from diffinst.datasets.doctor.said_of_objects import OBJECTS

_LAST: Kinds = {
    "refused": Kind(
        "breaks",
        "split",
        "The split cannot be loaded for training.",
        "Correct what the message says.",
    ),
}

CATALOGUE: Kinds = {**ENTRIES, **IMAGES, **OBJECTS, **LABELS, **_LAST}
