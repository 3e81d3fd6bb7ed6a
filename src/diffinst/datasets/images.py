"""Where are the images that an annotation file names? Looks once into each folder."""

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
    part counts.

    Args:
        packed: Images.
        folder: Where they are.
        file: What names them, for errors.

    Raises:
        DatasetError: An image is missing, or two entries mean the same one.
    """
    names = unpack_texts(packed.names, packed.names_starts)
    others = unpack_texts(packed.other_names, packed.other_names_starts)
    ids = packed.image_ids
    look = _Folder(folder)
    found = [
        next((name for name in _variants(name, other, folder) if look.holds(name)), "")
        for name, other in zip(names, others, strict=True)
    ]
    lost = [i for i, name in enumerate(found) if not name]
    if lost:
        bare = [[_bare(name) for name in (names[i], others[i])] for i in lost]
        below = look.below({name for pair in bare for name in pair if name})
        for i, pair in zip(lost, bare, strict=True):
            places = next((below[name] for name in pair if below.get(name)), [])
            if len(places) > 1:
                raise DatasetError(
                    f"{file}: image {ids[i]} ({names[i]}) may be {shown(sorted(places))} in "
                    f"{folder}; write the subfolder into 'file_name'"
                )
            found[i] = places[0] if places else ""
    missing = [i for i, name in enumerate(found) if not name]
    if missing:
        others_too = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        first = missing[0]
        raise DatasetError(
            f"{file}: image {ids[first]} ({names[first]}){others_too} is missing on disk; put it "
            f"into {folder}, or remove it from 'images' with its annotations"
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
        "under one of them and remove the others"
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


class _Folder:
    """A folder of which each subfolder is read once, when a name in it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, frozenset[str]] = {}

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name, relative to the folder or absolute."""
        parent, slash, last = name.rpartition("/")
        parent += slash  # "" is the folder itself, "/" the root of the disk
        if parent not in self._files:
            self._files[parent] = frozenset(_files_in(self.root / parent))
        return last in self._files[parent]

    def below(self, wanted: set[str]) -> dict[str, list[str]]:
        """The places of files by their last part, hidden folders left out."""
        places: dict[str, list[str]] = {}
        for parent, folders, files in os.walk(self.root) if wanted else ():
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            prefix = Path(os.path.relpath(parent, self.root))
            for name in wanted.intersection(files):
                places.setdefault(name, []).append((prefix / name).as_posix())
        return places


def _files_in(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in the name
        return
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}; check its permissions") from error
