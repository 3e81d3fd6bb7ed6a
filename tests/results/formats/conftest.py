"""Scenes of everything that a mask can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.results.crops import CroppedMasks
from diffinst.results.formats.scene import Scene
from diffinst.results.instances import Instances

CLASSES = ("weiße Zelle", "cell")


def instances(masks: NDArray[np.bool_], labels: list[int], path: Path | None = None) -> Instances:
    n = len(masks)
    crops = CroppedMasks.from_dense(torch.from_numpy(masks))
    image = np.random.default_rng(7).integers(0, 256, (*masks.shape[1:], 3), dtype=np.uint8)
    if path is not None:
        Image.fromarray(image).save(path)
    return Instances(
        boxes=crops.tight_boxes(),
        scores=torch.linspace(0.9, 0.5, n) if n else torch.zeros(0),
        labels=torch.tensor(labels, dtype=torch.int64),
        mask_crops=crops,
        image_size=(masks.shape[1], masks.shape[2]),
        class_names=CLASSES,
        image=image,
        path=path,
    )


@pytest.fixture
def masks() -> NDArray[np.bool_]:
    """Bool (5, 12, 17): one pixel in the corner, a border, two parts, two holes, a diagonal."""
    masks = np.zeros((5, 12, 17), dtype=bool)
    masks[0, 0, 0] = True
    masks[1, 9:12, 13:17] = True
    masks[2, 1:3, 2:4] = masks[2, 5, 2:6] = True
    masks[3, 2:9, 7:14] = True
    masks[3, 4, 9] = masks[3, 6:8, 11] = False
    masks[4, 7, 1] = masks[4, 8, 2] = masks[4, 9, 3] = True
    return masks


@pytest.fixture
def scene(masks: NDArray[np.bool_], tmp_path: Path) -> Scene:
    """An image of a file with a space and an accent in its name."""
    (tmp_path / "in").mkdir()
    found = instances(masks, [0, 1, 1, 0, 1], tmp_path / "in" / "é 1.png")
    return Scene(found, "é 1", "é 1.png")


@pytest.fixture
def nothing() -> Scene:
    """Nothing found on an image that came from no file."""
    found = instances(np.zeros((0, 8, 9), dtype=bool), [])
    return Scene(found, "none", "none.png", image_id=2)


@pytest.fixture
def without_pixels() -> Scene:
    """An object whose mask is empty."""
    masks = np.zeros((2, 8, 9), dtype=bool)
    masks[1, 3, 4] = True
    return Scene(instances(masks, [0, 1]), "void", "void.png", image_id=3)


Objects: TypeAlias = list[tuple[str, NDArray[np.bool_]]]
"""Class name and mask."""


@pytest.fixture
def read_back() -> Callable[[Path], list[Objects]]:
    """The objects of each image of a folder, by our own readers of datasets."""

    def read(root: Path) -> list[Objects]:
        split = load_split(root, "train")
        return [
            [
                (
                    split.classes[one.label],
                    rasterize(one.segmentation, record.height, record.width),
                )
                for one in record.annotations
            ]
            for record in split.records
        ]

    return read


@pytest.fixture
def same() -> Callable[[Objects, Scene], None]:
    """Asserts that objects that were read are those of a scene, in its order."""

    def check(objects: Objects, scene: Scene) -> None:
        found = scene.found
        assert [name for name, _ in objects] == [CLASSES[i] for i in found.labels.tolist()]
        masks = [mask for _, mask in objects]
        assert np.array_equal(np.stack(masks), found.masks.numpy())

    return check
