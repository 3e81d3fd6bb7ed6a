"""Does Label Studio get what was found, and does it answer to what is drawn there?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffinst import DiffusionInst
from diffinst.adapters.label_studio import Answers, Tags, backend, brush

LABELS = '<Label value="Circle"/><Label value="Square"/><Label value="Other"/>'
CONFIG = (
    '<View><Image name="img" value="$photo"/><BrushLabels name="tag" toName="img">'
    f'{LABELS}</BrushLabels><KeyPointLabels name="kp" toName="img" smart="true">{LABELS}'
    "</KeyPointLabels></View>"
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def parsed(kind: str, *labels: str) -> dict[str, dict[str, object]]:
    source = {"type": "Image", "value": "photo"}
    return {
        "kp": {"type": "KeyPointLabels", "to_name": ["img"], "inputs": [source], "labels": ["x"]},
        "tag": {"type": kind, "to_name": ["img"], "inputs": [source], "labels": list(labels)},
    }


def unpacked(rle: list[int]) -> NDArray[np.uint8]:
    """The values of a brush's bytes, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    number, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        same, length = take(1), take(sizes[take(2)]) + 1
        values += [take(word)] * length if same else [take(word) for _ in range(length)]
    return np.array(values, np.uint8)


def masks() -> list[NDArray[np.bool_]]:
    one = np.zeros((6, 7), bool)
    one[2:4, 3] = True
    return [one, ~one, np.ones((3, 2), bool), np.ones((200, 200), bool), np.eye(30, dtype=bool)]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: str(mask.shape))
def test_a_brush_holds_the_mask(mask: NDArray[np.bool_]) -> None:
    values = unpacked(brush(mask)).reshape(*mask.shape, 4)
    assert (values == 255 * mask[..., None]).all()


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: str(mask.shape))
def test_label_studio_reads_the_brush(mask: NDArray[np.bool_]) -> None:
    reader = pytest.importorskip("label_studio_sdk.converter.brush", reason="no label-studio-sdk")
    values = reader.decode_rle(brush(mask)).reshape(*mask.shape, 4)
    assert (values[..., 3] == 255 * mask).all()


def test_tags_are_found_by_kind_and_labels_by_name() -> None:
    tags = Tags.of(parsed("PolygonLabels", "Dog", "Cat"), ("cat", "bird"))
    assert (tags.kind, tags.name, tags.image, tags.value) == (
        "PolygonLabels", "tag", "img", "photo",
    )  # fmt: skip
    assert tags.labels == ("Cat", None)
    assert Tags.of(parsed("BrushLabels", "cell"), ("nucleus",)).labels == ("cell",)


def test_an_interface_that_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="neither BrushLabels nor PolygonLabels"):
        Tags.of(parsed("RectangleLabels", "cat"), ("cat",))
    with pytest.raises(ValueError, match="labels Dog, Cow, the model the classes cat; call labels"):
        Tags.of(parsed("BrushLabels", "Dog", "Cow"), ("cat",))


def test_all_objects_come_as_brushes(tiny: DiffusionInst, photo: Path) -> None:
    tags = Tags.of(parsed("BrushLabels", *tiny.class_names), tiny.class_names)
    options = {"steps": 1, "threshold": 0.0, "seed": 3}
    answer = Answers(tiny, options).to(tags, photo, None)  # type: ignore[arg-type]
    found = tiny.predict(photo, steps=1, threshold=0.0, seed=3)
    found = found[found.mask_crops.area() > 0]
    regions = answer["result"]
    assert isinstance(regions, list) and len(regions) == len(found) > 0
    for region, mask, label in zip(regions, found.masks, found.labels.tolist(), strict=True):
        values = unpacked(region["value"]["rle"]).reshape(48, 64, 4)
        assert (values[..., 0] == 255 * mask.numpy()).all()
        assert region["value"]["brushlabels"] == [tiny.class_names[label]]
        assert (region["from_name"], region["to_name"]) == ("tag", "img")


def drawn(**click: object) -> dict[str, object]:
    box = {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["Mine"]}
    point = {"x": 50, "y": 50, "keypointlabels": ["Mine"]}
    items = [{"type": "rectanglelabels", "value": box}]
    return {"result": [*items, {"type": "keypointlabels", "value": point, **click}]}


def test_what_is_drawn_is_the_prompt(tiny: DiffusionInst, photo: Path) -> None:
    tags = Tags.of(parsed("PolygonLabels", *tiny.class_names), tiny.class_names)
    answers = Answers(tiny, {})
    answer = answers.to(tags, photo, drawn(is_positive="0"))
    meant = tiny.encode(photo).prompt(boxes=[[16, 12, 48, 36]], exclude=[[32, 24]])
    regions = answer["result"]
    assert isinstance(regions, list)
    assert answer["score"] == pytest.approx(float(meant.scores[0]))
    assert all(one["value"]["polygonlabels"] == ["Mine"] for one in regions)
    again = answers.to(tags, photo, drawn())["result"]  # the next object of the same annotation
    assert isinstance(again, list)
    ids = [one["id"] for one in [*regions, *again]]
    assert len(set(ids)) == len(ids)
    negative = {"result": [{"type": "keypointlabels", "is_positive": 0, "value": {"x": 1, "y": 1}}]}
    assert answers.to(tags, photo, negative)["result"] == []  # nothing is meant yet


def test_label_studio_asks_its_own_server(tiny: DiffusionInst, photo: Path) -> None:
    api = pytest.importorskip("label_studio_ml.api", reason="label-studio-ml is not installed")
    names = "".join(f'<Label value="{name}"/>' for name in tiny.class_names)
    config = CONFIG.replace(LABELS, names)
    client = api.init_app(backend(tiny, {"steps": 1, "threshold": 0.0})).test_client()
    assert client.get("/health").get_json()["status"] == "UP"
    setup = client.post("/setup", json={"project": "1.1", "schema": config})
    assert setup.status_code == 200, setup.get_data(as_text=True)
    local = f"/data/local-files/?d={photo.as_posix().lstrip('/')}"  # as its local storage names it
    asked = {"tasks": [{"id": 1, "data": {"photo": local}}], "label_config": config}
    asked["project"] = "1.1"
    answer = client.post("/predict", json=asked)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    (prediction,) = answer.get_json()["results"]
    assert prediction["result"] and prediction["result"][0]["type"] == "brushlabels"
    pointed = client.post("/predict", json={**asked, "params": {"context": drawn(is_positive=1)}})
    (prediction,) = pointed.get_json()["results"]
    assert len(prediction["result"]) <= 1
