"""Finds the splits of a dataset folder, annotation files and their images, by looking.

In this order, the first to name a split has it; R is the dataset's folder:

R/annotations/instances_S.json     images in R/S/, R/images/S/ or R/images/; image_info_S.json
                                   (COCO's test images), S.json and the like are taken, too
R/annotations/lvis_v1_S.json       images below R, R/images or R/../coco (LVIS has COCO's)
R/S/_annotations.coco.json         beside its images (Roboflow); also annotations.json, ...
R/S.json, R/lvis_v1_S.json, ...    as in R/annotations; a file named after no split is "train"
R/S/*.json, R/*.json               LabelMe: one for each image, beside it
R/data.yaml                        YOLO: names, and where the images of train, val and test are

Each json but LabelMe's may be an XML of CVAT for images in its place. A year in a name
("train2017") may be left out, and "valid" and "validation" are "val".
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffinst.datasets import data_yaml, labelme
from diffinst.datasets.problems import DatasetError, shown
from diffinst.datasets.split_names import SAME, WORDS, plain, split_name, year
from diffinst.io.images import IMAGE_SUFFIXES

Format = Literal["coco", "lvis", "yolo", "cvat", "labelme"]

_NAMELESS = {"annotations", "instances", "result", "labels", "coco", "_annotations.coco"}
_SUFFIXES = (".json", ".xml")
_BESIDE = ("_annotations.coco", "annotations", "labels", "instances", "coco")
_COCO_FOLDERS = ("train2017", "val2017", "test2017")  # LVIS annotates these images


@dataclass(frozen=True)
class SplitFiles:
    """What one split is read from.

    Attributes:
        name: "train", "val", "test", ...
        format: How the annotations are written.
        annotations: The json, the XML or the data.yaml; for LabelMe the folder of its files.
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
    claimants = [found for found in complete if found.files.name == plain(name)]
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
    for file in _listed(folder):
        lvis = re.fullmatch(r"lvis_(?:v[\d.]+_)?(?:image_info_)?(.+)", file.stem)
        if lvis is not None:
            images = _lvis_images(root)
            yield _Found(file.stem, SplitFiles(plain(lvis[1]), "lvis", file, images))
            continue
        exact = split_name(file.stem)
        if exact is not None:
            images = _images(root, exact)
            yield _Found(exact, SplitFiles(plain(exact), _format(file), file, images))


def _nameless(root: Path) -> Iterator[_Found]:
    """The only annotation file there is, if it is named after no split."""
    for folder in (root / "annotations", root):
        for suffix in _SUFFIXES:
            files = [file for file in _listed(folder, suffix) if file.stem in _NAMELESS]
            if len(files) == 1:
                images = _images(root, "train")
                files_of = SplitFiles("train", _format(files[0]), files[0], images)
                yield _Found("train", files_of)
                return
    if _are_labelme(_listed(root, ".json")):
        yield _Found("train", SplitFiles("train", "labelme", root, root))


def _listed(folder: Path, suffixes: str | tuple[str, ...] = _SUFFIXES) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted(name for name in os.listdir(folder) if name.endswith(suffixes))
    return [folder / name for name in names if not name.startswith(".")]


def _format(file: Path) -> Format:
    return "cvat" if file.suffix == ".xml" else "coco"


def _are_labelme(files: Sequence[Path]) -> bool:
    """Whether one of the first is LabelMe's: others may lie among them."""
    return any(labelme.is_labelme(file) for file in files[:3])


def _beside(root: Path, claimed: Collection[str]) -> Iterator[_Found]:
    """Annotation files that lie with their images in a folder named after the split."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        name = plain(folder.name)
        stems = (*_BESIDE, folder.name) if name in WORDS else _BESIDE[:1]
        files = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES for stem in stems]
        usual = [file for file in files if os.path.isfile(file)]  # False in lost+found, no error
        # Only then is a folder of perhaps 100,000 images searched.
        search = not usual and name in WORDS.difference(claimed)
        files = usual[:1] or (_listed(folder, ".json") if search else [])
        if not usual and _are_labelme(files):
            yield _Found(folder.name, SplitFiles(name, "labelme", folder, folder))
        elif len(files) == 1:
            file = files[0]
            inner = [folder / below for below in ("images", "data") if (folder / below).is_dir()]
            images = inner[0] if inner else folder
            yield _Found(folder.name, SplitFiles(name, _format(file), file, images))


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


def _years_differ(found: _Found, name: str) -> bool:
    return bool(year(name) and year(found.exact)) and year(name) != year(found.exact)


def _images(root: Path, exact: str) -> Path:
    """The folder of a split's images; where there is none, the first that would do."""
    bare, of_year = plain(exact), year(exact)
    part = bare.partition("-")[0]  # the images of test-dev lie in those of test
    same = [other for other, name in SAME.items() if name == bare]
    names = list(dict.fromkeys([exact, bare + of_year, part + of_year, bare, part, *same]))
    below = [f"{up}{name}" for name in names for up in ("", "images/", "data/")]
    folders = [root / name for name in (*below, "images", "JPEGImages", "data")]
    there = [folder for folder in folders if folder.is_dir()]
    return there[0] if there else _only_folder(root) or folders[0]


def _only_folder(root: Path) -> Path | None:
    """Where images can only be: in the one folder of no special name, or in the root itself."""
    with os.scandir(root) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry.name for entry in seen if entry.is_dir() and entry.name != "annotations"]
    if len(folders) == 1 and plain(folders[0]) not in WORDS:
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
        if found.exact == name or found.files.name == plain(name):
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
        f"lvis_v1_{name}.json, such an .xml (CVAT for images), {name}/*.json of LabelMe, and "
        f"'{name}' in a data.yaml; {there}"
    )


def _describe(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    return f"{folder} holds {shown(names) or 'nothing'}"
