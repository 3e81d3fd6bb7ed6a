"""Which split does a file or a folder of this name hold?"""

from __future__ import annotations

import re

SAME = {
    "valid": "val",
    "validation": "val",
    "training": "train",
    "testing": "test",
    "default": "train",  # CVAT
}
WORDS = {"train", "val", "test", "test-dev", "minival", "trainval"}
_FILLERS = {"", "annotation", "annotations", "coco", "instances", "labels", "image", "info"}


def split_name(stem: str) -> str | None:
    """The split that a file is named after, as written; None if after none."""
    instances = re.fullmatch(r"(?:instances|image_info)_(.+)", stem)
    if instances is not None:
        return instances[1]
    words = [word for word in re.split(r"[._]+", stem) if word not in _FILLERS]
    return words[0] if len(words) == 1 and plain(words[0]) in WORDS else None


def plain(exact: str) -> str:
    """The name without a year, one of several spellings."""
    bare = re.sub(r"[-_]?\d{4}$", "", exact) or exact
    return SAME.get(bare, bare.replace("test_dev", "test-dev"))


def year(exact: str) -> str:
    """The year at the end of a name, or nothing."""
    found = re.search(r"\d{4}$", exact)
    return found[0] if found else ""
