"""Does CVAT's own package take the functions, and read from them what was found?"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst import DiffusionInst
from diffinst.adapters.cvat import Detector, Prompter, create, encoded
from diffinst.config import ConfigError

cvataa = pytest.importorskip("cvat_sdk.auto_annotation", reason="pip install cvat-sdk")
masks = pytest.importorskip("cvat_sdk.masks")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")
models = pytest.importorskip("cvat_sdk.models")


def context(threshold: float | None = None, *, polygons: bool = False) -> object:
    made: object = driver._DetectionFunctionContextImpl(
        frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons
    )
    return made


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8))


def cases() -> list[NDArray[np.bool_]]:
    corner = np.zeros((5, 6), bool)
    corner[3:, 4] = True
    ring = np.ones((5, 6), bool)
    ring[2, 2:4] = False
    return [corner, ring, np.eye(4, dtype=bool), np.ones((1, 1), bool)]


@pytest.mark.parametrize("mask", cases(), ids=lambda mask: str(int(mask.sum())))
def test_cvat_encodes_and_decodes_masks_alike(mask: NDArray[np.bool_]) -> None:
    whole = np.zeros((20, 30), bool)
    whole[7 : 7 + mask.shape[0], 9 : 9 + mask.shape[1]] = mask
    assert encoded(mask, 7, 9) == masks.encode_mask(whole)
    back = masks.decode_mask(encoded(mask, 7, 9), image_width=30, image_height=20)
    assert (back == whole).all()


def test_all_objects_come_as_masks(tiny: DiffusionInst, image: Image.Image) -> None:
    function = Detector(tiny, {"steps": 1, "seed": 3})
    shapes = function.detect(context(0.0), image)
    found = tiny.predict(image, steps=1, threshold=0.0, seed=3)
    found = found[found.mask_crops.area() > 0]
    assert len(shapes) == len(found) > 0
    for shape, one in zip(shapes, found, strict=True):
        mask = masks.decode_mask(shape.points, image_width=64, image_height=48)
        assert (mask == one.masks[0].numpy()).all()
        assert shape.score == pytest.approx(float(one.scores[0]))
        assert function.spec.labels[shape.label_id].name == tiny.class_names[int(one.labels[0])]
    assert not function.detect(context(1.0), image)


def test_polygons_fill_the_masks(tiny: DiffusionInst, image: Image.Image) -> None:
    function = Detector(tiny, {"steps": 1, "max_detections": 3})
    shapes = function.detect(context(0.0, polygons=True), image)
    found = tiny.predict(image, steps=1, max_detections=3, threshold=0.0)
    assert shapes and {shape.type.value for shape in shapes} == {"polygon"}
    drawn = coco_mask.merge(coco_mask.frPyObjects([list(s.points) for s in shapes], 48, 64))
    assert (coco_mask.decode(drawn).astype(bool) == found.masks.any(0).numpy()).all()


@pytest.mark.parametrize("polygons", [False, True])
def test_cvats_driver_takes_the_answers(
    tiny: DiffusionInst, image: Image.Image, polygons: bool
) -> None:
    """Its mapper is what `annotate_task` checks and renames every answer with."""
    function = Detector(tiny, {"steps": 1})
    labels = [
        SimpleNamespace(id=100 + i, name=name, type="any", attributes=[], sublabels=[])
        for i, name in enumerate(tiny.class_names)
    ]
    mapper = driver._AnnotationMapper(
        logging.getLogger(__name__),
        function.spec.labels,
        labels,
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )
    shapes = function.detect(context(0.0, polygons=polygons), image)
    tags, mapped = mapper.validate_and_remap(shapes, 7)
    assert not tags and mapped and {shape.frame for shape in mapped} == {7}
    assert all(shape.label_id >= 100 for shape in mapped)


def test_the_command_lines_parameters(tiny: DiffusionInst, tmp_path: Path) -> None:
    folder = str(tiny.save_pretrained(tmp_path / "tiny"))
    function = create(model=folder, steps=2, proposals=20, seed=1, device="cpu")
    assert isinstance(function, Detector)
    assert isinstance(function.spec, cvataa.DetectionFunctionSpec)
    assert isinstance(create(folder, device="cpu", prompts=True), Prompter)
    with pytest.raises(ConfigError, match="steps"):
        create(folder, steps=0, device="cpu")


def test_clicks_and_boxes_get_their_object(tiny: DiffusionInst, image: Image.Image) -> None:
    function = Prompter(tiny)
    assert isinstance(function.spec, cvataa.InteractionFunctionSpec)
    ready = function.preprocess_image(None, image)
    box = ((16.0, 12.0), (48.0, 36.0))
    asked = SimpleNamespace(pos_points=[], neg_points=[(32.0, 24.0)], bounding_box=box)
    (shape,) = function.detect(None, ready, asked)
    meant = tiny.encode(image).prompt(boxes=[[16, 12, 48, 36]], exclude=[[32, 24]])
    mask = masks.decode_mask(shape.points, image_width=64, image_height=48)
    assert isinstance(shape, cvataa.InteractionResultShape) and shape.type == "mask"
    assert (mask == meant.masks[0].numpy()).all()
    nothing = SimpleNamespace(pos_points=[], neg_points=[(3.0, 4.0)], bounding_box=None)
    assert function.detect(None, ready, nothing) == []
