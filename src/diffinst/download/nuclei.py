"""Turns the published nuclei images (BBBC038, stage1_train.zip) into a COCO-format folder.

In the archive: ID/images/ID.png, and one ID/masks/*.png per nucleus. Made of it:

ROOT/annotations/instances_{train,val}.json
ROOT/{train,val}/ID.png
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as mask_utils

from diffinst.datasets.segmentation import DatasetError
from diffinst.download.archive import opened
from diffinst.io.atomic import write_text

_LICENCE_URL = "https://creativecommons.org/publicdomain/zero/1.0/"
# What Pillow's decoders raise for broken files.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_MEMBER = re.compile(r"(?:.*/)?(?P<id>[^/]+)/(?P<kind>images|masks)/[^/]+\.png")

# First eight digits of the ids of the 66 images that the shipped weights were validated on, and
# so not trained on. They were drawn at random once; no shorter rule gives them.
_VALIDATION = """
04acab76 05040e2e 05a8f65e 06c77933 15039b3a 1815cf30 29780b28 2bf594e9 33618678
3477024f 3582166e 37ed50ee 3d0ca349 4596961c 4e23ecf6 514ccfc7 564fa390 573a657d
573e1480 58406ed8 602f2674 608ff81c 62570c4f 63d981a1 693bc645 6bd33023 6d327ab4
6fe2df6d 718751b4 7af09f98 7b5987a2 87642352 88d5a03f 8a26b134 8f6597cd 947c0d94
9520aff4 a65bbfc5 a891bbc8 a90cad45 a9d884ba aa47f0b3 af8621ef b214800d b24ea5c2
b3a9f4c9 b560dba9 bb61fc17 bbfc4aab bf4a61bb c0152b1a c15c652c c395870a c44ed955
c6216cdc c89ac06d cc886273 d8607b21 dad607a2 e321cfa9 e66f25e1 e81c758e eb96fc6c
ed5be4b6 fdda64c4 feffce59
"""


def convert(
    archive: str | Path,
    root: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write splits of the nuclei data: RGB images without alpha, compressed RLE, one class.

    "val" are the 66 images that the shipped weights were validated on, "train" all others. Masks
    are taken as published; those without a pixel are omitted. A split is complete or not there.

    Args:
        archive: stage1_train.zip.
        root: The dataset's folder.
        splits: Some of "train" and "val"; their folders must not exist.
        progress: Called with the images done and in all.

    Returns:
        `root`.

    Raises:
        ArchiveError: The archive is damaged or dangerous.
        DatasetError: It holds something else than the published data.
        FileExistsError: The folder of a split exists.
    """
    archive, root = Path(archive), Path(root)
    unknown = set(splits) - {"train", "val"}
    if unknown:
        raise ValueError(f"no split '{min(unknown)}' of nuclei; there are train, val")
    for split in splits:
        if (root / split).exists():
            raise FileExistsError(f"{root / split} exists; move it away first")
    with opened(archive) as content:
        samples = [s for s in _samples(content, archive) if split_of(s.id) in splits]
        done = itertools.count(1)
        for split in splits:
            chosen = [sample for sample in samples if split_of(sample.id) == split]
            if not chosen:
                raise DatasetError(
                    f"{archive}: holds no image of the split '{split}'; is it stage1_train.zip?"
                )
            for _ in _write_split(content, root, split, chosen):
                if progress is not None:
                    progress(next(done), len(samples))
    return root


def split_of(image: str) -> str:
    """The split that an image belongs to, by its id: "train" or "val"."""
    return "val" if image[:8] in _VALIDATION.split() else "train"


class _Sample(NamedTuple):
    """One image: its id, and the archive's names of the image and of its masks."""

    id: str
    image: str
    masks: list[str]


def _samples(content: zipfile.ZipFile, archive: Path) -> list[_Sample]:
    """All images in the order of their ids, each with its masks in the order of their names."""
    names: dict[str, dict[str, list[str]]] = {}
    for name in sorted(content.namelist()):
        found = _MEMBER.fullmatch(name)
        if found is not None and not name.startswith("__MACOSX/"):
            sample = names.setdefault(found["id"], {"images": [], "masks": []})
            sample[found["kind"]].append(name)
    if not names:
        raise DatasetError(
            f"{archive}: no ID/images/ID.png in it; give stage1_train.zip of BBBC038"
        )
    for name, sample in names.items():
        if len(sample["images"]) != 1:
            raise DatasetError(
                f"{archive}: {name} has {len(sample['images'])} images in its images/, "
                "expected is one; fetch the archive again"
            )
    return [_Sample(name, s["images"][0], s["masks"]) for name, s in sorted(names.items())]


def _write_split(
    content: zipfile.ZipFile, root: Path, split: str, samples: Sequence[_Sample]
) -> Iterator[None]:
    """Write a split beside its place and put it there at the end; yields after each image."""
    folder = root / f".{split}.unpacking"
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run
    folder.mkdir(parents=True)
    images: list[dict[str, object]] = []
    objects: list[dict[str, object]] = []
    try:
        for image_id, sample in enumerate(samples, start=1):
            image = _image(content, sample.image, "RGB")
            image.save(folder / f"{sample.id}.png")
            size = {"height": image.height, "width": image.width}
            images.append({"id": image_id, "file_name": f"{sample.id}.png", "license": 1, **size})
            for mask in _masks(content, sample, image.height, image.width):
                objects.append({"id": len(objects) + 1, "image_id": image_id, **_object(mask)})
            yield
        tables = {
            "info": {"description": f"BBBC038v1 stage1_train, {split}", "version": "1"},
            "licenses": [{"id": 1, "name": "CC0 1.0", "url": _LICENCE_URL}],
            "images": images,
            "annotations": objects,
            "categories": [{"id": 1, "name": "nucleus", "supercategory": "cell"}],
        }
        # The images come last: a split whose folder is there is complete.
        file = root / "annotations" / f"instances_{split}.json"
        write_text(file, json.dumps(tables) + "\n")
        os.replace(folder, root / split)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _masks(
    content: zipfile.ZipFile, sample: _Sample, height: int, width: int
) -> Iterator[npt.NDArray[np.bool_]]:
    for name in sample.masks:
        mask = np.asarray(_image(content, name, "L")) != 0
        if mask.shape != (height, width):
            raise DatasetError(
                f"{content.filename}: {name} is of size {mask.shape} (height, width), its image "
                f"of {(height, width)}; fetch the archive again"
            )
        if mask.any():
            yield mask


def _image(content: zipfile.ZipFile, name: str, mode: str) -> Image.Image:
    packed = io.BytesIO(content.read(name))
    try:
        with Image.open(packed) as image:
            converted: Image.Image = image.convert(mode)
            return converted
    except _UNREADABLE as error:
        raise DatasetError(
            f"{content.filename}: {name} cannot be read ({error}); fetch the archive again"
        ) from error


def _object(mask: npt.NDArray[np.bool_]) -> dict[str, object]:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "category_id": 1,
        "bbox": mask_utils.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
    }
