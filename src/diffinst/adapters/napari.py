"""The napari plugin: an image layer in, a labels layer out; `napari.yaml` names it to napari."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffinst.adapters.beside_opengl import load_triton

if TYPE_CHECKING:
    import napari.layers
    import napari.types

    from diffinst.config import OptionFields
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.results.instances import Instances

Plane: TypeAlias = tuple[int, ...]
Prompts: TypeAlias = tuple[list[list[float]], list[list[float]]]
"""Boxes x0, y0, x1, y1 and points x, y, in pixels of a plane."""


def segment(
    image: napari.layers.Image,
    boxes: napari.layers.Shapes | None = None,
    clicks: napari.layers.Points | None = None,
    model: str = "nano-nuclei",
    steps: int = 0,
    proposals: int = 0,
    threshold: float = 0.0,
    seed: int = 0,
) -> napari.types.LayerDataTuple:
    """Find the objects of an image layer; napari makes a widget of these arguments.

    A stack (or a series) is taken plane by plane, the last two axes being the plane; numbers go on
    from plane to plane, and one object gets another number on each. Of an image with several
    resolutions the finest is taken; only one plane at a time is read into memory.

    Args:
        image: Grey or RGB, with any number of axes before.
        boxes: A layer of shapes: the object in each is found, and nothing else; steps, proposals
            and threshold do not count then.
        clicks: A layer of points: the object at each, likewise.
        model: Name of shipped weights, a model folder, a file, or a hub id.
        steps: Denoising steps; 0: as the model has it, like all numbers here.
        proposals: Boxes to start from.
        threshold: Lowest score.
        seed: Of the noise.

    Returns:
        Data, keywords and type of a labels layer: 0 is background, on each plane the lowest number
        has the highest score. It lies where the image lies. In napari it takes the place of an
        earlier one of its name: "... objects", or "... prompted" where boxes or clicks are given.

    Raises:
        ValueError: A layer of prompts that is empty or has too few axes, or an image without plane.
        CheckpointError: No such model.
        ConfigError: A number out of range; names it.
    """
    data = image.data[0] if image.multiscale else image.data
    shape: tuple[int, ...] = tuple(data.shape[:-1] if image.rgb else data.shape)
    if len(shape) < 2:
        raise ValueError(f"{image.name} has {len(shape)} axis; give an image of at least two")
    prompts = _prompts(image, boxes, clicks, shape)
    options: OptionFields = {"seed": seed}
    if steps:
        options["steps"] = steps
    if proposals:
        options["proposals"] = proposals
    if threshold:
        options["threshold"] = threshold
    labels = np.zeros(shape, dtype=np.int32)
    load_triton()
    from diffinst.adapters.loaded import loaded  # torch: loaded when it is used, after Triton

    last, network = 0, loaded(model)
    for plane in np.ndindex(shape[:-2]) if prompts is None else sorted(prompts):
        pixels = np.asarray(data[plane])
        given = None if prompts is None else prompts[plane]
        found = _found(network, pixels[..., :3] if image.rgb else pixels, given, options)
        numbers = found.to_label_map().astype(np.int32)
        labels[plane] = np.where(numbers > 0, numbers + last, 0)
        last += len(found)
    what = "objects" if prompts is None else "prompted"  # napari writes over a layer of one name
    keywords = {"name": f"{image.name} {what}", **_place(image)}
    return (labels, keywords, "labels")


def _found(
    model: DiffusionInst,
    pixels: NDArray[np.generic],
    prompts: Prompts | None,
    options: OptionFields,
) -> Instances:
    if prompts is None:
        all_found: Instances = model.predict(pixels, **options)
        return all_found
    boxes, points = prompts
    found: Instances = model.encode(pixels).prompt(
        boxes or None, points or None, seed=options["seed"]
    )
    return found[found.scores > 0]


def _place(image: napari.layers.Image) -> Mapping[str, object]:
    """Where a layer lies in the world."""
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(image, name) for name in names if hasattr(image, name)}


def _prompts(
    image: napari.layers.Image,
    boxes: napari.layers.Shapes | None,
    clicks: napari.layers.Points | None,
    shape: tuple[int, ...],
) -> dict[Plane, Prompts] | None:
    """What is pointed at on each plane; None: all is to be found."""
    if boxes is None and clicks is None:
        return None
    found: dict[Plane, Prompts] = {}
    for corners in _in_image(image, boxes, len(shape)):
        (y0, x0), (y1, x1) = corners[:, -2:].min(0), corners[:, -2:].max(0)
        found.setdefault(_plane(corners[0]), ([], []))[0].append([x0, y0, x1, y1])
    for point in _in_image(image, clicks, len(shape)):
        y, x = point[0, -2:]
        found.setdefault(_plane(point[0]), ([], []))[1].append([x, y])
    for plane in found:
        if not all(0 <= at < count for at, count in zip(plane, shape[:-2], strict=True)):
            raise ValueError(
                f"a box or click is on plane {_numbers(plane)}, but {image.name} has "
                f"{_numbers(shape[:-2])} planes, counted from 0; remove it"
            )
    if not found:
        raise ValueError("the layers of boxes and clicks are empty; draw one, or choose no layer")
    return found


def _numbers(values: tuple[int, ...]) -> str:
    return " x ".join(map(str, values))


def _plane(point: NDArray[np.float64]) -> Plane:
    return tuple(round(float(value)) for value in point[:-2])


def _in_image(
    image: napari.layers.Image, layer: napari.layers.Shapes | napari.layers.Points | None, axes: int
) -> list[NDArray[np.float64]]:
    """The corners of each shape, or each point, (n, axes) in pixels of the image.

    napari counts from the middle of the first pixel, boxes and clicks here from its edge.
    """
    if layer is None:
        return []
    if layer.ndim != axes:
        raise ValueError(
            f"{layer.name} has {layer.ndim} axes, {image.name} has {axes}; draw on a layer that "
            "is made while the image is open"
        )
    middle = np.array([0.0] * (axes - 2) + [0.5, 0.5])
    shapes = [np.atleast_2d(np.asarray(shape, np.float64)) for shape in layer.data]
    return [
        np.array([image.world_to_data(layer.data_to_world(corner)) for corner in shape]) + middle
        for shape in shapes
    ]
