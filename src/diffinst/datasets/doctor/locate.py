"""Where is the image that an entry names, if its name is not quite right?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from diffinst.io.images import ImageReadError, list_images


class Folder:
    """The images of a split, listed when a name in it is not found at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, other: str) -> tuple[Path | None, str]:
        """Look for an image by its name, or by the other name that it may have.

        Returns:
            The file, or None; and what is wrong with the name: empty where the readers, which
            forgive a good deal (see `diffinst.datasets.images`), find it, too.
        """
        for variant in self._variants(name, other):
            if os.path.isfile(self.root / variant):  # where Path's own raises: may not be read
                return self.root / variant, ""
        last = name.replace("\\", "/").rpartition("/")[2]
        below = self._named(last)
        exact = [path for path in below if path.name == last]
        free = last == name or self._leads_out(name)
        if len(exact) == 1 and free:
            return exact[0], ""
        if len(below) > 1:
            places = ", ".join(self.shown(path) for path in below[:3])
            return None, f"it may be {places}"
        if below:
            return below[0], f"but {self.shown(below[0])} is there"
        readable = os.access(self.root, os.R_OK | os.X_OK)
        problem = f"not in {self.root}" if readable else f"{self.root} may not be read"
        return None, problem

    def shown(self, path: Path) -> str:
        """Relative to the folder where it lies in it."""
        inside = path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if inside else str(path)

    def _variants(self, name: str, other: str) -> Iterator[str]:
        for written in (name, other, name.replace("\\", "/")):
            parts = written.split("/")
            for count in range(len(parts)):  # it may begin with the name of the folder itself
                if count == 0 or self.root.absolute().parts[-count:] == tuple(parts[:count]):
                    yield "/".join(parts[count:]) or "."

    def _leads_out(self, name: str) -> bool:
        parts = name.replace("\\", "/").split("/")
        return ".." in parts or os.path.isabs(name) or parts[0][1:] == ":"

    def _named(self, name: str) -> list[Path]:
        """The images of this name in any subfolder, whatever the letter case."""
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in images_in(self.root):
                self._by_name[path.name.lower()].append(path)
        return self._by_name.get(name.lower(), [])


def images_in(folder: Path) -> list[Path]:
    """The image files below a folder, possibly none."""
    try:
        return list_images([folder])
    except ImageReadError:  # there are none, or it may not be read: the entries will tell
        return []
