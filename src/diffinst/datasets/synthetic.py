"""Generates small images of coloured shapes in COCO format, to try and test training with."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as mask_utils

from diffinst.io.atomic import write_json

SHAPES = ("disc", "box", "triangle")
_ORIGIN = "diffinst make_shapes"  # tells our files from somebody's data
_MIN_SIDE = 32
_RADII = (0.12, 0.26)  # of the shorter side of the image
_MIN_VISIBLE = 0.35  # of every shape, whatever comes to lie on it
_TRIES = 200  # for one shape

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def make_shapes(
    root: str | Path,
    *,
    train: int = 8,
    val: int = 4,
    size: tuple[int, int] = (96, 128),
    classes: Sequence[str] = SHAPES,
    seed: int = 0,
    objects: tuple[int, int] = (0, 6),
) -> Path:
    """Write a dataset of overlapping shapes on a textured background.

    Masks are what is visible of a shape. The same arguments give the same files, and image i of
    a split does not depend on how many there are. Running it again replaces its own files.

    Args:
        root: folder to write into; made if missing.
        train: number of images in the split "train".
        val: number of images in the split "val".
        size: (height, width) of every image, 32 or more each.
        classes: some of `SHAPES`; their order gives the category ids, from 1.
        seed: 0 or more.
        objects: fewest and most shapes on an image, both included.

    Returns:
        `root`, which `diffinst.datasets.load.load_split` reads.

    Raises:
        ValueError: an argument is out of range, or that many shapes do not fit on an image.
        FileExistsError: `root` holds annotations that were not made here.

    Example:
        >>> sorted(path.name for path in make_shapes("shapes", train=1, val=1).iterdir())
        ['annotations', 'train', 'val']
    """
    _check_arguments((train, val), size, classes, seed, objects)
    root = Path(root)
    splits = {"train": train, "val": val}
    for split in splits:
        file = _annotation_file(root, split)
        if file.exists() and _ORIGIN not in file.read_text(encoding="utf-8", errors="replace"):
            raise FileExistsError(
                f"{file} exists and was not made by make_shapes; it stays as it is: "
                "choose an empty folder"
            )
    for number, (split, count) in enumerate(splits.items()):
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for index in range(count):
            rng = np.random.default_rng([seed, number, index])
            pixels, masks, labels = _draw(rng, size, classes, objects)
            name = f"{index:06d}.png"
            Image.fromarray(pixels).save(root / split / name)
            images.append({"id": index + 1, "file_name": name, "height": size[0], "width": size[1]})
            for mask, label in zip(masks, labels, strict=True):
                rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": label + 1,
                        "bbox": mask_utils.toBbox(rle).tolist(),
                        "area": int(mask.sum()),
                        "iscrowd": 0,
                        "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
                    }
                )
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
        write_json(
            _annotation_file(root, split),
            {
                "info": {"description": _ORIGIN, "split": split, "seed": seed},
                "images": images,
                "annotations": annotations,
                "categories": categories,
            },
        )
    return root


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _check_arguments(
    counts: tuple[int, int],
    size: tuple[int, int],
    classes: Sequence[str],
    seed: int,
    objects: tuple[int, int],
) -> None:
    if min(counts) < 0:
        raise ValueError(f"train={counts[0]}, val={counts[1]}; allowed are numbers from 0")
    if min(size) < _MIN_SIDE:
        raise ValueError(f"size={size}; allowed is (height, width) with {_MIN_SIDE} or more each")
    if not classes or isinstance(classes, str) or not set(classes) <= set(SHAPES):
        raise ValueError(f"classes={classes!r}; allowed are one or more of {SHAPES}")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes={classes!r}; name each class once")
    if seed < 0:
        raise ValueError(f"seed={seed}; allowed are numbers from 0")
    if not 0 <= objects[0] <= objects[1]:
        raise ValueError(f"objects={objects}; allowed is (fewest, most) with 0 <= fewest <= most")


def _draw(
    rng: np.random.Generator,
    size: tuple[int, int],
    classes: Sequence[str],
    objects: tuple[int, int],
) -> tuple[Pixels, list[Mask], list[int]]:
    """One image (height, width, 3), its visible masks (height, width) from back to front."""
    canvas = _background(rng, size)
    masks: list[Mask] = []
    areas: list[int] = []  # before anything was hidden
    labels: list[int] = []
    wanted = int(rng.integers(objects[0], objects[1] + 1))
    while len(masks) < wanted:
        for _ in range(_TRIES):
            label = int(rng.integers(len(classes)))
            shape = _shape(rng, classes[label], size)
            visible = [mask & ~shape for mask in masks]
            pairs = zip(visible, areas, strict=True)
            if all(left.sum() >= _MIN_VISIBLE * area for left, area in pairs):
                break
        else:
            raise ValueError(
                f"objects={objects}: only {len(masks)} of {wanted} shapes fit on an image; ask "
                "for fewer (a larger size does not help, shapes grow with it)"
            )
        masks = [*visible, shape]
        areas.append(int(shape.sum()))
        labels.append(label)
        canvas[shape] = _texture(rng, size, strength=0.08)[shape] + _bright_colour(rng)
    return (canvas.clip(0, 1) * 255).round().astype(np.uint8), masks, labels


def _background(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Dull grey with waves and grain, (height, width, 3) in about [0.2, 0.6]."""
    return _texture(rng, size, strength=0.15) + rng.uniform(0.3, 0.5)


def _texture(
    rng: np.random.Generator, size: tuple[int, int], strength: float
) -> npt.NDArray[np.float64]:
    y, x = _pixel_centres(size)
    angle, phase = rng.uniform(0, 2 * math.pi, size=2)
    wave = np.sin((math.cos(angle) * x + math.sin(angle) * y) / rng.uniform(2, 12) + phase)
    grain = rng.normal(0, 0.3, size=(*size, 3))
    textured: npt.NDArray[np.float64] = strength * (0.5 * wave[..., None] + 0.5 * grain)
    return textured


def _bright_colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.6, 1), rng.uniform(0.7, 1)))


def _shape(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> Mask:
    """A (height, width) mask: centre inside the image, of any turn, cut off by the border."""
    y, x = _pixel_centres(size)
    radius = rng.uniform(*_RADII) * min(size)
    y, x = y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1])
    turn = rng.uniform(0, 2 * math.pi)
    along = math.cos(turn) * x + math.sin(turn) * y
    across = math.cos(turn) * y - math.sin(turn) * x
    match kind:
        case "disc":
            return np.asarray(along**2 + across**2 <= radius**2)
        case "box":
            return np.asarray(
                (abs(along) <= 0.9 * radius) & (abs(across) <= rng.uniform(0.4, 0.9) * radius)
            )
        case "triangle":  # equilateral: each side is half a radius from the centre
            corner = math.sqrt(3) / 2
            sides = (along, -along / 2 + corner * across, -along / 2 - corner * across)
            return np.asarray(np.max(sides, axis=0) <= radius / 2)
        case _:
            raise ValueError(f"shape {kind!r}; allowed are {SHAPES}")


def _pixel_centres(
    size: tuple[int, int],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows (height, 1) and columns (1, width)."""
    rows, columns = (np.arange(side, dtype=np.float64) + 0.5 for side in size)
    return rows[:, None], columns[None]
