"""A large image is looked at in parts, and what is found lies where it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.config import ConfigError, OptionFields
from diffinst.results.instances import Instances
from diffinst.serve import tiles
from diffinst.serve.app import create_app
from diffinst.serve.looks import LOOKS, Large, Pointed, Stopped, looks_in_parts
from diffinst.serve.page_files import page_files
from diffinst.serve.window import Window

NewClient = Callable[[ASGIApp], TestClient]
AT = (700, 900)  # y, x of the sample


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 100)


def sample() -> NDArray[np.uint8]:
    content = page_files()["samples/stained.png"].content
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def large() -> NDArray[np.uint8]:
    """The sample on an empty ground of 1,100 x 1,400."""
    pixels = np.full((1100, 1400, 3), 230, np.uint8)
    part = sample()
    pixels[AT[0] : AT[0] + part.shape[0], AT[1] : AT[1] + part.shape[1]] = part
    return pixels


def look_at(model: DiffusionInst, pixels: NDArray[np.uint8]) -> Large:
    height, width = pixels.shape[:2]
    part = Window(0, 0, height, width)
    return Large(model, (height, width), lambda: pixels, lambda _: model.encode(part.of(pixels)))


def always() -> bool:
    return True


def test_results_grow_and_the_last_one_has_all(tiny: DiffusionInst) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 2500, 3), np.uint8)
    options: OptionFields = {"proposals": 20, "threshold": 0.0}
    found = list(look_at(tiny, noise).results(options, always))
    whole = Instances.cat(list(tiny.predict_tiles(noise, **options)))
    assert 1 < len(found) <= LOOKS + 1 and found[-1] == whole
    counts = [len(one) for one in found]
    assert counts == sorted(counts) and found[0] == whole[: counts[0]]
    blank = np.zeros((40, 50, 3), np.uint8)  # flat tiles are passed over
    assert [len(one) for one in look_at(tiny, blank).results({}, always)] == [0]


def test_it_ends_between_tiles_and_hands_on_what_there_is(tiny: DiffusionInst) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 4500, 3), np.uint8)
    asked = 0

    def thrice() -> bool:
        nonlocal asked
        asked += 1
        return asked < 4

    found: list[Instances] = []
    with pytest.raises(Stopped):
        found.extend(look_at(tiny, noise).results({"proposals": 5, "threshold": 0.0}, thrice))
    assert asked == 4 and len(found) == 1  # of six tiles
    pointed = Pointed([[5, 5, 40, 40]] * 5, [], [], together=False, replace=None)
    asked = 1
    with pytest.raises(Stopped):
        look_at(tiny, noise).pointed(pointed, thrice)
    assert asked == 4


def test_several_runs_are_refused(tiny: DiffusionInst) -> None:
    look = look_at(tiny, np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(ConfigError, match="noises is 2, but a large image is looked at in tiles"):
        list(look.results({"noises": 2}, always))


def in_parts(model: DiffusionInst) -> DiffusionInst:
    """The same weights, seeing images at one zoom and not at one size."""
    config = model.config.updated(preprocess={"short_side": None})
    return DiffusionInst(model.network, config)


def test_objects_are_found_in_tiles_but_by_models_of_photos(
    tiny: DiffusionInst, tmp_path: Path, png: bytes, new_client: NewClient
) -> None:
    zooming = in_parts(tiny)
    assert looks_in_parts(zooming) and not looks_in_parts(tiny)
    models = {"photos": tiny, "zooming": zooming}
    client = new_client(create_app(models, tmp_path / "p"))
    image = client.post("/images", content=png).json()["id"]
    pixels = np.array(Image.open(io.BytesIO(png)))
    options: OptionFields = {"proposals": 20, "threshold": 0, "steps": 2}
    tiled = Instances.cat(list(zooming.predict_tiles(pixels, **options)))
    for name, wanted in (("zooming", tiled), ("photos", tiny.predict(pixels, **options))):
        done = client.post("/predict", json={"image": image, "model": name, **options}).json()
        assert [one["rle"] for one in done["objects"]] == wanted.mask_crops.to_rle() != []
        assert (done["steps"], done["proposals"]) == (2, 20)
    asked = {"image": image, "model": "zooming", "seconds": 1}
    refused = client.post("/predict", json=asked)
    assert refused.status_code == 422 and "time limit" in refused.json()["detail"]


def test_prompts_look_closely(
    nano: DiffusionInst, tmp_path: Path, large: NDArray[np.uint8], new_client: NewClient
) -> None:
    box, click = [40.0, 215.0, 95.0, 256.0], [200.0, 101.0]
    alone = nano.encode(sample()).prompt(boxes=[box], points=[click])
    client = new_client(create_app({"nano": nano}, tmp_path / "n"))
    image = client.post("/images", content=as_png(large)).json()["id"]
    y, x = AT
    asked = {
        "image": image,
        "boxes": [[box[0] + x, box[1] + y, box[2] + x, box[3] + y]],
        "points": [[click[0] + x, click[1] + y]],
        "exclude": [[5, 5]],  # in no window
    }
    done = client.post("/prompt", json=asked).json()
    outside = client.post("/prompt", json={"image": image, "points": [[1401, 5]]})
    objects = {one["id"]: one for one in done["objects"]}
    for i, answer in enumerate(done["answers"]):
        mask = coco_mask.decode(objects[answer]["rle"]).astype(bool)
        there = np.zeros_like(mask)
        there[y : y + 256, x : x + 320] = alone.masks[i].numpy()
        assert (mask & there).sum() / (mask | there).sum() > 0.7
    assert outside.status_code == 422
    assert "outside the image, which is 1400 wide and 1100 high" in outside.json()["detail"]
