"""Finds the splits of a dataset folder, annotation files and their images, by looking.

In this order, the first to name a split has it; R is the dataset's folder:

R/annotations/instances_S.json     images in R/S/, R/images/S/ or R/images/; image_info_S.json
                                   (COCO's test images), S.json and the like are taken, too
R/annotations/lvis_v1_S.json       images below R, R/images or R/../coco (LVIS has COCO's)
R/S/_annotations.coco.json         beside its images (Roboflow); also annotations.json, ...
R/S.json, R/lvis_v1_S.json, ...    as in R/annotations; a file named after no split is "train"
R/data.yaml                        YOLO: names, and where the images of train, val and test are

A year in a name ("train2017") may be left out, and "valid" and "validation" are "val".
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffinst.datasets import data_yaml
from diffinst.datasets.problems import DatasetError, shown
from diffinst.io.images import IMAGE_SUFFIXES

Format = Literal["coco", "lvis", "yolo"]

_SAME = {
    "valid": "val",
    "validation": "val",
    "training": "train",
    "testing": "test",
    "default": "train",  # CVAT
}
_WORDS = {"train", "val", "test", "test-dev", "minival", "trainval"}
_NAMELESS = {"annotations", "instances", "result", "labels", "coco", "_annotations.coco"}
_BESIDE = ("_annotations.coco", "annotations", "labels", "instances", "coco")
_FILLERS = {"", "annotation", "annotations", "coco", "instances", "labels", "image", "info"}
_COCO_FOLDERS = ("train2017", "val2017", "test2017")  # LVIS annotates these images


@dataclass(frozen=True)
class SplitFiles:
    """What one split is read from.

    Attributes:
        name: "train", "val", "test", ...
        format: How the annotations are written.
        annotations: The json, or the data.yaml.
        images: The folder that file names refer to. For YOLO the folder of the split's images;
            where the data.yaml names several, or a list, the one it lies in itself.
    """

    name: str
    format: Format
    annotations: Path
    images: Path


@dataclass(frozen=True)
class _Found:
    exact: str  # the name as written: "train2017", "valid", "lvis_v1_train"
    files: SplitFiles


def find_splits(root: str | Path) -> dict[str, SplitFiles]:
    """The splits of a dataset folder, none of which has been opened yet.

    Where several files claim one name ("train2014" and "train2017"), each is listed as it is
    written.

    Args:
        root: The folder (see above), or a YOLO data.yaml.

    Raises:
        DatasetError: `root` is no folder or cannot be read, or its data.yaml is broken.

    Example:
        >>> from diffinst.datasets.synthetic import make_shapes
        >>> sorted(find_splits(make_shapes("shapes")))
        ['train', 'val']
    """
    return _by_key(_look(Path(root))[0])


def find_split(root: str | Path, name: str) -> SplitFiles:
    """Find one split.

    Args:
        root: The folder (see above), or a YOLO data.yaml.
        name: "train", "val", "valid", "train2017", "test-dev", ...

    Raises:
        DatasetError: There is none, or more than one; the message lists what was looked for and
            what is there.
    """
    root = Path(root)
    complete, incomplete = _look(root)
    splits = _by_key(complete)
    if name in splits:
        return splits[name]
    plain = _plain(name)
    claimants = [found for found in complete if found.files.name == plain]
    same_year = [
        found for found in claimants if found.exact == name or not _years_differ(found, name)
    ]
    if len(same_year) == 1:
        return same_year[0].files
    if same_year:
        names = [f"{found.exact} ({found.files.annotations})" for found in same_year]
        raise DatasetError(
            f"{root}: split '{name}' may be {' or '.join(names)}; name one of them, or keep each "
            "dataset in a folder of its own"
        )
    raise DatasetError(_absent(root, name, splits, incomplete))


def _by_key(complete: Iterable[_Found]) -> dict[str, SplitFiles]:
    by_name: dict[str, list[_Found]] = defaultdict(list)
    for found in complete:
        by_name[found.files.name].append(found)
    splits: dict[str, SplitFiles] = {}
    for name, claimants in by_name.items():
        for found in claimants:
            key = name if len(claimants) == 1 else found.exact
            splits.setdefault(key, replace(found.files, name=key))
    return splits


def _look(root: Path) -> tuple[list[_Found], list[_Found]]:
    """The splits, and the annotation files whose images are not there (`images` is a guess)."""
    if root.suffix in (".yaml", ".yml") and root.is_file():
        return list(_yolo(root)), []
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; give the folder of the dataset")
    complete: list[_Found] = []
    incomplete: list[_Found] = []
    try:
        named = list(_in(root / "annotations", root))
        claimed = {found.files.name for found in named}
        for found in (*named, *_beside(root, claimed), *_in(root, root)):
            known = any(other.exact == found.exact for other in complete)
            if not known:
                (complete if found.files.images.is_dir() else incomplete).append(found)
        if not complete and not incomplete:
            complete += [found for found in _nameless(root) if found.files.images.is_dir()]
        names = {found.files.name for found in complete}
        for file in _yaml_files(root):
            complete += [found for found in _yolo(file) if found.files.name not in names]
    except OSError as error:
        raise DatasetError(f"{root}: {error}; check its permissions") from error
    return complete, incomplete


def _in(folder: Path, root: Path) -> Iterator[_Found]:
    """Annotation files that are named after their split, the images elsewhere below `root`."""
    for file in _jsons(folder):
        lvis = re.fullmatch(r"lvis_(?:v[\d.]+_)?(?:image_info_)?(.+)", file.stem)
        if lvis is not None:
            images = _lvis_images(root)
            yield _Found(file.stem, SplitFiles(_plain(lvis[1]), "lvis", file, images))
            continue
        exact = _split_name(file.stem)
        if exact is not None:
            images = _images(root, exact)
            yield _Found(exact, SplitFiles(_plain(exact), "coco", file, images))


def _nameless(root: Path) -> Iterator[_Found]:
    """The only annotation file there is, if it is named after no split."""
    for folder in (root / "annotations", root):
        files = [file for file in _jsons(folder) if file.stem in _NAMELESS]
        if len(files) == 1:
            yield _Found("train", SplitFiles("train", "coco", files[0], _images(root, "train")))
            return


def _jsons(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    return [folder / name for name in names if not name.startswith(".")]


def _beside(root: Path, claimed: Collection[str]) -> Iterator[_Found]:
    """Annotation files that lie with their images in a folder named after the split."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        name = _plain(folder.name)
        stems = (*_BESIDE, folder.name) if name in _WORDS else _BESIDE[:1]
        files = [folder / f"{stem}.json" for stem in stems]
        usual = [file for file in files if os.path.isfile(file)]  # False in lost+found, no error
        # Only then is a folder of perhaps 100,000 images searched.
        search = not usual and name in _WORDS.difference(claimed)
        files = usual[:1] or (_jsons(folder) if search else [])
        if len(files) == 1:
            file = files[0]
            inner = [folder / below for below in ("images", "data") if (folder / below).is_dir()]
            images = inner[0] if inner else folder
            yield _Found(folder.name, SplitFiles(name, "coco", file, images))


def _yolo(file: Path) -> Iterator[_Found]:
    for name, sources in data_yaml.sources(file).items():
        single = len(sources) == 1 and sources[0].is_dir()
        images = sources[0] if single else file.parent
        yield _Found(name, SplitFiles(name, "yolo", file, images))


def _yaml_files(root: Path) -> list[Path]:
    """The file that describes a YOLO dataset, if there is one."""
    files = sorted(path for path in root.iterdir() if path.suffix in (".yaml", ".yml"))
    usual = [file for file in files if file.stem in ("data", "dataset")]
    if usual:
        return usual[:1]
    return files if len(files) == 1 and data_yaml.is_dataset(files[0]) else []


def _split_name(stem: str) -> str | None:
    """The split that a file is named after, as written; None if after none."""
    instances = re.fullmatch(r"(?:instances|image_info)_(.+)", stem)
    if instances is not None:
        return instances[1]
    words = [word for word in re.split(r"[._]+", stem) if word not in _FILLERS]
    return words[0] if len(words) == 1 and _plain(words[0]) in _WORDS else None


def _plain(exact: str) -> str:
    """The name without a year, one of several spellings."""
    bare = re.sub(r"[-_]?\d{4}$", "", exact) or exact
    return _SAME.get(bare, bare.replace("test_dev", "test-dev"))


def _year(exact: str) -> str:
    year = re.search(r"\d{4}$", exact)
    return year[0] if year else ""


def _years_differ(found: _Found, name: str) -> bool:
    return bool(_year(name) and _year(found.exact)) and _year(name) != _year(found.exact)


def _images(root: Path, exact: str) -> Path:
    """The folder of a split's images; where there is none, the first that would do."""
    plain, year = _plain(exact), _year(exact)
    part = plain.partition("-")[0]  # the images of test-dev lie in those of test
    same = [other for other, name in _SAME.items() if name == plain]
    names = list(dict.fromkeys([exact, plain + year, part + year, plain, part, *same]))
    below = [f"{up}{name}" for name in names for up in ("", "images/", "data/")]
    folders = [root / name for name in (*below, "images", "JPEGImages", "data")]
    there = [folder for folder in folders if folder.is_dir()]
    return there[0] if there else _only_folder(root) or folders[0]


def _only_folder(root: Path) -> Path | None:
    """Where images can only be: in the one folder of no special name, or in the root itself."""
    with os.scandir(root) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry.name for entry in seen if entry.is_dir() and entry.name != "annotations"]
    if len(folders) == 1 and _plain(folders[0]) not in _WORDS:
        return root / folders[0]
    images = any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in seen)
    return root if images else None


def _lvis_images(root: Path) -> Path:
    """The folder that holds COCO's train2017/, val2017/, ...; else the dataset's own."""
    for folder in (root, root / "images", root.parent / "coco", root.parent / "coco" / "images"):
        if any((folder / name).is_dir() for name in _COCO_FOLDERS):
            return folder
    return root


def _absent(root: Path, name: str, splits: Iterable[str], incomplete: Iterable[_Found]) -> str:
    for found in incomplete:
        if found.exact == name or found.files.name == _plain(name):
            return (
                f"no images for split '{name}': {found.files.annotations} is there, but "
                f"{found.files.images} (a folder) is not, nor {root / 'images'}; put the images "
                "there"
            )
    known = f"splits found: {', '.join(splits)}" if splits else "no split was found"
    folders = [root, root / "annotations"] if root.is_dir() else [root.parent]
    there = "; ".join(_describe(folder) for folder in folders if folder.is_dir())
    return (
        f"no split '{name}' in {root}; {known}; looked for annotations/instances_{name}.json with "
        f"{name}/ or images/{name}/, {name}/_annotations.coco.json, {name}.json with images/, "
        f"lvis_v1_{name}.json, and '{name}' in a data.yaml; {there}"
    )


def _describe(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    return f"{folder} holds {shown(names) or 'nothing'}"
