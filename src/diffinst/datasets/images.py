"""Finds the images that an annotation file names; looks once into each folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffinst.datasets.packed import Packed, unpack_texts
from diffinst.datasets.problems import DatasetError, shown


def locate(packed: Packed, folder: Path, file: Path) -> Packed:
    """Make sure that every image is there, and correct the file names that say it differently.

    A name refers to `folder`, subfolders allowed. It may also begin with the name of `folder`
    ("train/a.jpg" in train/), be written the Windows way, or be of a file in some subfolder where
    only one is called so; of a path that leads out of the folder (one of another machine) the last
    part counts, so nothing outside is ever read. Links that lie in the folder are followed,
    wherever they lead: who put the data there placed them.

    Args:
        packed: Images.
        folder: Where they are.
        file: What names them, for errors.

    Raises:
        DatasetError: An image is missing, or two entries mean the same one.
    """
    names = unpack_texts(packed.names, packed.names_starts)
    others = unpack_texts(packed.other_names, packed.other_names_starts)
    look = Folder(folder)
    found, missing = [], []
    for i, (name, other) in enumerate(zip(names, others, strict=True)):
        places = look.find(name, other)
        if look.unreadable:
            raise DatasetError(look.unreadable, "missing-image")
        if len(places) > 1:
            raise DatasetError(
                f"{file}: image {packed.image_ids[i]} ({name}) may be {shown(sorted(places))} in "
                f"{folder}; write the subfolder into 'file_name'",
                "missing-image",
            )
        found += places or [""]
        missing += [] if places else [i]
    if missing:
        others_too = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        where = f"image {packed.image_ids[missing[0]]} ({names[missing[0]]}){others_too}"
        out = f" ('file_name' leads out of {folder})" if look.leads_out(names[missing[0]]) else ""
        raise DatasetError(
            f"{file}: {where} is missing on disk{out}; put it into {folder}, or remove it from "
            "'images' with its annotations",
            "missing-image",
        )
    _check_distinct(found, packed, file)
    return packed if found == names else packed.with_names(found)


def _check_distinct(names: Sequence[str], packed: Packed, file: Path) -> None:
    if len(set(names)) == len(names):
        return
    double = next(name for name, count in Counter(names).items() if count > 1)
    ids = [int(packed.image_ids[i]) for i, name in enumerate(names) if name == double]
    raise DatasetError(
        f"{file}: images {shown(ids)} are the same file, {double}; put their annotations together "
        "under one of them and remove the others",
        "duplicate-file-name",
    )


def _variants(name: str, other: str, folder: Path) -> Iterator[str]:
    """Where the file may be, likeliest first, relative to the folder."""
    for written in (name, other, name.replace("\\", "/") if "\\" in name else ""):
        if not written:
            continue
        yield written
        parts = written.split("/")
        for count in range(1, len(parts)):
            if folder.absolute().parts[-count:] == tuple(parts[:count]):
                yield "/".join(parts[count:])


def _bare(name: str) -> str:
    """What may be looked for in subfolders: names without a folder, or with one elsewhere."""
    parts = name.replace("\\", "/").split("/")
    elsewhere = ".." in parts or os.path.isabs(name) or parts[0][1:] == ":"
    return parts[-1] if len(parts) == 1 or elsewhere else ""


class Folder:
    """A folder of images, of which each subfolder is read once, when a name in it is asked for.

    Attributes:
        unreadable: Which of its folders may not be read, and why; empty: none was met.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = os.path.normpath(root.absolute())
        self.unreadable = ""
        self._files: dict[str, frozenset[str]] = {}
        self._by_name: dict[str, list[str]] | None = None

    def find(self, name: str, other: str) -> list[str]:
        """Where the file of an entry is, relative to the folder, by its name or the other one.

        Returns:
            One place, none, or several where the name leaves it open.
        """
        for variant in _variants(name, other, self.root):
            inside = self._inside(variant)
            if inside and self._holds(inside):
                return [inside]
        for bare in filter(None, map(_bare, (name, other))):
            places = [place for place in self.near(bare) if place.rpartition("/")[2] == bare]
            if places:
                return places
        return []

    def near(self, name: str) -> list[str]:
        """The files of this last part, whatever the letter case and the (not hidden) folder."""
        if self._by_name is None:
            self._by_name = {}
            for parent, folders, files in os.walk(self.root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                prefix = Path(os.path.relpath(parent, self.root))
                for file in files:
                    place = (prefix / file).as_posix()
                    self._by_name.setdefault(file.lower(), []).append(place)
        last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return self._by_name.get(last.lower(), [])

    def leads_out(self, name: str) -> bool:
        """Whether a name is that of something outside the folder; links are not looked at."""
        return not self._inside(name.replace("\\", "/"))

    def _inside(self, name: str) -> str:
        """The name without "..", which may lead out through links; empty where it leads out."""
        plain = os.path.normpath(name) if ".." in name.split("/") else name
        whole = os.path.normpath(os.path.join(self._top, plain))
        return plain if whole.startswith(os.path.join(self._top, "")) else ""

    def _holds(self, name: str) -> bool:
        """Whether there is a file of this name, relative to the folder or absolute."""
        parent, slash, last = name.rpartition("/")
        parent += slash  # "" is the folder itself, "/" the root of the disk
        if parent not in self._files:
            self._files[parent] = frozenset(self._files_in(self.root / parent))
        return last in self._files[parent]

    def _files_in(self, folder: Path) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in entries if entry.is_file())
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in the name
            return
        except OSError as error:
            self.unreadable = f"{folder}: {error.strerror}; check its permissions"
