"""Reads YOLO's data.yaml: which classes there are, and where the images of each split are."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffinst.config.yaml_file import YamlError, read_yaml
from diffinst.datasets.problems import DatasetError, Place, Problems, merge_namesakes, shown
from diffinst.io.images import ImageReadError, list_images
from diffinst.io.regular import check_regular

SPLITS = ("train", "val", "test")

_KEYS = {*SPLITS, "valid"}
_FOLDERS = {split: split for split in SPLITS} | {"valid": "val", "validation": "val"}


def sources(file: Path) -> dict[str, list[Path]]:
    """Where the images of each split are: folders, or text files that list images.

    Splits of which nothing is there are left out (exports list a test split that they lack). A file
    that says nothing of any split (supervision's) lies beside images/train, images/val, ... or
    train/images, ...; images/ without such folders is "train".

    Args:
        file: The data.yaml.

    Raises:
        DatasetError: The file is broken, says something that is no path, or names two folders of
            which only one is there.
    """
    content = _read_yaml(file)
    if not _KEYS & content.keys():
        return _usual(file, content)
    named = {**content, "val": content.get("val", content.get("valid"))}
    found = {split: _existing(file, content, split, named.get(split)) for split in SPLITS}
    return {split: paths for split, paths in found.items() if paths}


def is_dataset(file: Path) -> bool:
    """Whether a YAML file describes a dataset."""
    try:
        content = _read_yaml(file)
    except DatasetError:
        return False
    return "names" in content and ("train" in content or "val" in content or bool(sources(file)))


def names(file: Path, problems: Problems) -> tuple[dict[int, str], dict[int, int]]:
    """Class names by number, ascending, and by number itself or the class it is merged into.

    Both are empty, after a note, where there are no classes.
    """
    content = _read_yaml(file)
    given, count, here = content.get("names"), content.get("nc"), Place(file_name=str(file))
    pairs = enumerate(given) if isinstance(given, list) else ()
    named = dict(given if isinstance(given, dict) else pairs)
    if not named or not all(type(number) is int and number >= 0 for number in named):
        problems.note(
            "yolo-names",
            here,
            where=str(file),
            repaired=False,
            problem=f"'names' is {reprlib.repr(given)}; give a list of class names, or numbers "
            "with names",
            detail="'names' is missing, empty, or no list of class names",
        )
        return {}, {}
    classes = {number: _name(named[number]) for number in sorted(named)}
    renumbered = merge_namesakes(classes, problems, where=str(file), table="names", unit="classes")
    if count is not None and count != len(named):
        detail = f"'nc' is {reprlib.repr(count)}, 'names' holds {len(named)}"
        problem = f"{detail}; correct one"
        problems.note("yolo-names", here, where=str(file), problem=problem, detail=detail)
    return classes, renumbered


def _name(value: object) -> str:
    """Of a class; what should be no name, of a million values perhaps, is shortened."""
    return reprlib.repr(value) if isinstance(value, list | dict | set) else str(value)


def images_of(file: Path, split: str, problems: Problems) -> tuple[list[Path], list[str]]:
    """The images of a split, missing ones that are listed included, and names that stand twice."""
    places = bases(file)
    found: list[Path] = []
    for source in sources(file)[split]:
        if source.is_dir():
            try:
                found += list_images([source])
            except ImageReadError as error:
                problems.note("no-images", where=str(file), problem=f"'{split}': {error}")
        else:
            found += _listed(source, places, problems)
    counts = Counter(found)
    return list(counts), [path.name for path, count in counts.items() if count > 1]


def _listed(source: Path, bases: Sequence[Path], problems: Problems) -> Iterator[Path]:
    """The images that a text file lists, one a line."""
    try:
        check_regular(source)
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot be read ({reason}); correct it"
        problems.note("broken-file", where=str(source), problem=problem)
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        places = [place / line.strip() for place in (source.parent, *bases)]
        path = next((place for place in places if os.path.isfile(place)), None)
        if path is None:
            looked = f"looked for {shown(dict.fromkeys(map(str, places)))}"
            problem = f"{line.strip()} is missing on disk ({looked}); put it there"
            problems.note("missing-image", where=f"{source}, line {number}", problem=problem)
        yield path or places[0]


def _read_yaml(file: Path) -> Mapping[str, object]:
    try:
        check_regular(file)
        content = read_yaml(file)
    except (OSError, YamlError) as error:
        problem = getattr(error, "strerror", None) or error
        raise DatasetError(f"{file}: cannot be read as YAML ({problem}); correct it") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected 'names', 'train' and 'val'; it holds no such keys")
    return content


def _existing(file: Path, content: Mapping[str, object], split: str, value: object) -> list[Path]:
    """What exists of a split's entries, looked for where exports put it."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    for entry in (content.get("path") or "", *entries):
        if not isinstance(entry, str):
            raise DatasetError(
                f"{file}: '{split}' or 'path' holds {reprlib.repr(entry)}; allowed are a folder, a "
                ".txt file that lists images, or a list of them"
            )
    roots = _bases(file, content)
    found, missing = [], []
    for entry in map(str, entries):
        names = (entry, entry.removeprefix("../"))  # Roboflow: ../train/images for train/images
        places = [place / name for place in roots for name in names]
        there = [p for p in places if p.is_dir() or (p.suffix == ".txt" and p.is_file())]
        found += there[:1]
        missing += [] if there else [entry]
    if found and missing:
        raise DatasetError(
            f"{file}: {missing[0]!r} of '{split}' is no folder and no .txt file below "
            f"{roots[0]}; correct the entry or remove it"
        )
    return found


def _usual(file: Path, content: Mapping[str, object]) -> dict[str, list[Path]]:
    """Where the images of each split are if images/ and labels/ lie as usual."""
    for root in _bases(file, content):
        pairs = [
            (split, root / images, root / labels)
            for name, split in _FOLDERS.items()
            for images, labels in (
                (f"images/{name}", f"labels/{name}"),
                (f"{name}/images", f"{name}/labels"),
            )
        ]
        there = [(split, images) for split, images, labels in pairs if _all_there(images, labels)]
        found = {split: [images] for split, images in reversed(there)}  # the first has it
        if not found and _all_there(root / "images", root / "labels"):
            found = {"train": [root / "images"]}
        if found:
            return found
    return {}


def _all_there(*folders: Path) -> bool:
    return all(folder.is_dir() for folder in folders)


def bases(file: Path) -> list[Path]:
    """The folders that a data.yaml's paths may refer to, absolute."""
    return [place.absolute() for place in _bases(file, _read_yaml(file))]


def _bases(file: Path, content: Mapping[str, object]) -> list[Path]:
    """What a path in the file may refer to.

    Its `path` may start at the file, at the folder above (as in Ultralytics' own), or be of another
    machine.
    """
    home, path = file.parent, str(content.get("path") or "")
    return [home / path, home.absolute().parent / path, home] if path else [home]
