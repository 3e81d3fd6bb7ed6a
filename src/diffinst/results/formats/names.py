"""What the files that are written for images are called, and how other programs see the images."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from pathlib import PurePath

import numpy as np


class Names:
    """Names for any number of images, of which eight bytes for each are in memory.

    Stems that several images share are in memory, too.

    Args:
        paths: Of all images, in order; absolute, or addresses such as s3://bucket/a.png.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        hashes = array("q")
        above: str | None = None
        for path in paths:
            hashes.append(hash(PurePath(path).stem.casefold()))
            parent = os.path.dirname(path)
            if parent != above:
                above = parent if above is None else _above_both(above, parent)
        self._above = above
        self._stems = np.sort(np.array(hashes, np.int64))  # numbers avoid them
        self._last: dict[str, int] = {}  # numbers given, of stems that several share

    def take(self, path: str) -> tuple[str, str]:
        """An image's two names; called once for each, in the same order.

        Returns:
            The stem, with a number where an earlier image has it: letter case alone tells no files
            apart. And the path as seen from the innermost folder that holds all images, with /
            between folders; the whole path where there is no such folder.
        """
        whole = PurePath(path)
        seen = whole.relative_to(self._above).as_posix() if self._above else path
        return self._unique(whole.stem), seen

    def _unique(self, stem: str) -> str:
        key = stem.casefold()
        if self._count(key) == 1:
            return stem
        count = self._last.get(key, 0) + 1
        while count > 1 and self._count(f"{key}-{count}"):
            count += 1
        self._last[key] = count
        return stem if count == 1 else f"{stem}-{count}"

    def _count(self, key: str) -> int:
        """How many images have a stem."""
        first, last = (np.searchsorted(self._stems, hash(key), side) for side in ("left", "right"))
        return int(last - first)


def _above_both(one: str, other: str) -> str:
    """The innermost folder that holds both; empty where there is none."""
    try:
        return os.path.commonpath([one, other])
    except ValueError:  # on several disks, or addresses among files
        return ""
