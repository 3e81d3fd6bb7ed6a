"""Does the API answer as the package does, and keep what a person did?"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst import DiffusionInst
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import compressed
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits

NewClient = Callable[..., TestClient]


def added(client: TestClient, content: bytes, name: str = "a.png") -> str:
    answer = client.post("/images", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def events(client: TestClient, **asked: object) -> list[tuple[str, dict[str, object]]]:
    with client.stream("GET", "/stream", params=asked) as answer:  # type: ignore[arg-type]
        assert answer.status_code == 200
        text = "".join(answer.iter_text())
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(b[0].removeprefix("event: "), json.loads(b[1].removeprefix("data: "))) for b in blocks]


def test_each_step_is_an_event_and_equals_stream(
    client: TestClient, png: bytes, tiny: DiffusionInst
) -> None:
    image = added(client, png)
    got = events(client, image=image, steps=3, proposals=20, seed=5, threshold=0)
    assert [kind for kind, _ in got] == ["encoded", "step", "step", "step", "done"]
    pixels = np.array(Image.open(io.BytesIO(png)))
    wanted = list(tiny.stream(pixels, steps=3, proposals=20, seed=5, threshold=0.0))
    for (_, data), found in zip(got[1:4], wanted, strict=True):
        objects = data["objects"]
        assert isinstance(objects, list) and len(objects) == len(found) > 0
        assert [one["rle"] for one in objects] == found.mask_crops.to_rle()
        assert [one["score"] for one in objects] == found.scores.tolist()
    final = got[-1][1]
    assert final["steps"] == 3 and final["proposals"] == 20
    kept = client.get(f"/images/{image}").json()
    assert kept["objects"] == final["objects"]
    assert [one["id"] for one in kept["objects"]] == list(range(1, len(wanted[-1]) + 1))


def test_predict_gives_the_last_step(client: TestClient, png: bytes) -> None:
    image = added(client, png)
    asked = {"image": image, "steps": 2, "proposals": 20, "threshold": 0}
    done = client.post("/predict", json=asked).json()
    streamed = events(client, **asked)[-1][1]["objects"]
    assert isinstance(streamed, list) and len(streamed) == len(done["objects"]) > 0
    assert [one["rle"] for one in streamed] == [one["rle"] for one in done["objects"]]


def test_prompts_equal_prompt_and_are_exported(
    nano: DiffusionInst, tmp_path: Path, new_client: NewClient
) -> None:
    client = new_client(create_app({"nano": nano}, tmp_path / "nano"))
    content = client.get("/static/samples/stained.png").content
    image = added(client, content, "stained.png")
    box = [40.0, 215.0, 95.0, 256.0]
    done = client.post("/prompt", json={"image": image, "boxes": [box], "points": [[200, 101]]})
    answers = done.json()["answers"]
    pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    wanted = nano.encode(pixels).prompt(boxes=[box], points=[[200, 101]])
    objects = {one["id"]: one for one in done.json()["objects"]}
    assert [objects[i]["rle"] for i in answers] == wanted.mask_crops.to_rle()
    coco = client.get(f"/images/{image}/export").json()
    for one, mask in zip(coco["annotations"], wanted.masks.numpy(), strict=True):
        exported = coco_mask.decode(compressed(one["segmentation"], 256, 320))
        assert np.array_equal(exported, mask)
    assert coco["images"] == [{"id": 1, "file_name": "stained.png", "height": 256, "width": 320}]

    excluded = {"image": image, "boxes": [box], "exclude": [[70, 240]], "replace": answers[0]}
    corrected = client.post("/prompt", json=excluded).json()
    assert corrected["answers"] == [None]  # nothing else is there, so what was found stays
    assert answers[0] in [one["id"] for one in corrected["objects"]]
    better = {"image": image, "boxes": [box], "points": [[[70, 240]]], "together": True}
    (answer,) = client.post("/prompt", json=better).json()["answers"]
    work = client.get(f"/images/{image}").json()["objects"]
    (mask,) = [coco_mask.decode(one["rle"]) for one in work if one["id"] == answer]
    assert mask[240, 70] == 1  # the click lies on what it got


def test_kept_objects_stay_through_predictions_and_edits_are_undone(
    client: TestClient, png: bytes
) -> None:
    image = added(client, png)
    asked = {"image": image, "proposals": 20, "threshold": 0}
    first = client.post("/predict", json=asked).json()
    mine = max(first["objects"], key=lambda one: int(one["area"]))
    edit = f"/images/{image}/edit"
    labelled = client.post(edit, json={"action": "label", "objects": [mine["id"]], "label": 1})
    (kept,) = [one for one in labelled.json()["objects"] if one["kept"]]
    assert kept["label"] == 1 and kept["rle"] == mine["rle"]
    again = client.post("/predict", json={**asked, "seed": 3}).json()
    assert again["objects"][0] == kept  # first, and as it was
    gone = client.post(edit, json={"action": "delete", "objects": [kept["id"]]}).json()
    assert kept not in gone["objects"] and len(gone["objects"]) == len(again["objects"]) - 1
    for wanted in (again, labelled.json(), first):
        undone = client.post(edit, json={"action": "undo"}).json()
        assert undone["objects"] == wanted["objects"]
    assert (
        client.post(edit, json={"action": "redo"}).json()["objects"] == labelled.json()["objects"]
    )


def test_work_survives_a_restart(
    png: bytes, tiny: DiffusionInst, tmp_path: Path, new_client: NewClient
) -> None:
    before = new_client(create_app({"tiny": tiny}, tmp_path))
    image = added(before, png)
    done = before.post("/predict", json={"image": image, "threshold": 0, "proposals": 20}).json()
    after = new_client(create_app({"tiny": tiny}, tmp_path))
    after.cookies = before.cookies
    assert after.get("/images").json()["images"][0]["name"] == "a.png"
    assert after.get(f"/images/{image}").json()["objects"] == done["objects"]
    assert after.get(f"/images/{image}/pixels").content[:4] == b"\x89PNG"


def test_a_second_tab_is_told(client: TestClient, png: bytes) -> None:
    image = added(client, png)
    done = client.post("/predict", json={"image": image, "threshold": 0, "proposals": 20}).json()
    edit, seen = f"/images/{image}/edit", done["revision"]
    first = {"action": "delete", "objects": [done["objects"][0]["id"]], "revision": seen}
    assert client.post(edit, json=first).status_code == 200
    late = client.post(edit, json={**first, "objects": [done["objects"][1]["id"]]})
    assert late.status_code == 409 and "another tab" in late.json()["detail"]
    assert len(client.get(f"/images/{image}").json()["objects"]) == len(done["objects"]) - 1


def test_exports_can_be_read(client: TestClient, png: bytes, tmp_path: Path) -> None:
    image = added(client, png, "cells (1).png")
    asked = {"image": image, "proposals": 20, "threshold": 0}
    objects = client.post("/predict", json=asked).json()["objects"]
    there = [one for one in objects if one["area"]]
    assert len(there) > 3
    at = f"/images/{image}/export"
    labels = np.array(Image.open(io.BytesIO(client.get(at, params={"format": "labels"}).content)))
    best = max(objects, key=lambda one: float(one["score"]))
    assert np.array_equal(labels == 1, coco_mask.decode(best["rle"]).astype(bool))
    geo = client.get(at, params={"format": "geojson"}).json()
    assert len(geo["features"]) == len(there)
    yolo = client.get(at, params={"format": "yolo"})
    assert "cells_1_yolo.zip" in yolo.headers["content-disposition"]
    zipfile.ZipFile(io.BytesIO(yolo.content)).extractall(tmp_path / "yolo")
    split = load_split(tmp_path / "yolo", "train")  # as `diffinst train` reads it
    assert len(split.records) == 1 and split.records[0].path.name == "cells_1.png"
    lines = (tmp_path / "yolo/labels/cells_1.txt").read_text().splitlines()
    assert len(lines) == len(there)
    least = sorted(one["score"] for one in there)[len(there) // 2]
    some = client.get(at, params={"threshold": least}).json()["annotations"]
    assert len(some) == sum(one["score"] >= least for one in there) < len(there)


def test_sessions_that_nobody_used_for_long_are_removed_at_the_start(
    png: bytes, tiny: DiffusionInst, tmp_path: Path, new_client: NewClient
) -> None:
    first, second = (new_client(create_app({"tiny": tiny}, tmp_path)) for _ in range(2))
    for client in (first, second):
        added(client, png)
    old, new = sorted(tmp_path.iterdir(), key=lambda folder: folder.stat().st_mtime)
    os.utime(old, (0, 0))
    new_client(create_app({"tiny": tiny}, tmp_path, limits=Limits(session_days=0)))
    new_client(create_app({"tiny": tiny}, tmp_path, limits=Limits(session_days=1)))
    until = time.monotonic() + 60
    while old.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == [new]
    assert first.get("/images").json() == {"images": []}


def test_a_session_holds_a_bounded_number_of_images(
    tiny: DiffusionInst, tmp_path: Path, png: bytes, new_client: NewClient
) -> None:
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=Limits(images=2)))
    codes = [client.post("/images", content=png).status_code for _ in range(3)]
    assert codes == [201, 201, 409]


def test_models_page_and_openapi(client: TestClient) -> None:
    served = client.get("/models").json()
    assert served["models"][0]["name"] == "tiny" and "stained" in served["samples"]
    assert client.get("/health").json()["status"] == "ok"
    addresses = client.get("/openapi.json").json()["paths"]
    wanted = {"/predict", "/prompt", "/stream", "/models", "/health", "/metrics", "/training"}
    assert wanted <= set(addresses) and {"get", "post"} == set(addresses["/training"])
    assert {"/training/resume", "/training/stop"} <= set(addresses)
    page = client.get("/").text
    assert '<script src="/static/app.js" type="module">' in page and "https://" not in page
    assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")


def test_metrics_count(client: TestClient, png: bytes) -> None:
    image = added(client, png)
    client.post("/predict", json={"image": image, "steps": 2, "proposals": 20})
    client.post("/predict", json={"image": image, "steps": 2, "proposals": 20})
    lines = dict(line.split(" ") for line in client.get("/metrics").text.splitlines())
    assert lines["diffinst_images_total"] == "1" and lines["diffinst_steps_total"] == "4"
    assert lines["diffinst_cache_misses"] == "1" and lines["diffinst_cache_hits"] == "1"
    assert lines["diffinst_jobs_done_total"] == "2" and lines["diffinst_queue"] == "0"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"steps": 65}, "steps: 65 is more than this server allows, 64"),
        ({"steps": 0}, "steps"),
        ({"proposals": 2001}, "proposals: 2001 is more"),
        ({"seconds": 1000}, "seconds: 1000"),
        ({"threshold": 2}, "threshold"),
        ({"model": "/etc/passwd"}, "not served here; there is tiny"),
        ({"kind": "ddim"}, "kind: Extra inputs are not permitted"),
    ],
)
def test_bad_options_are_one_line(
    client: TestClient, png: bytes, asked: dict[str, object], says: str
) -> None:
    image = added(client, png)
    answer = client.post("/predict", json={"image": image, **asked})
    assert answer.status_code == 422 and says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "nothing is asked for"),
        ({"boxes": [[0, 0, 9, 9]] * 1000}, "1000 in one request; allowed are 64"),
        ({"boxes": [[9, 9, 0, 0]]}, "box 0"),
        ({"boxes": [[0, 0, 9]]}, "boxes.0"),
        ({"points": [[1e9, 3]]}, "outside"),
        ({"boxes": [[0, 0, 9, 9]], "together": True}, "together"),
    ],
)
def test_bad_prompts_are_one_line(
    client: TestClient, png: bytes, asked: dict[str, object], says: str
) -> None:
    image = added(client, png)
    answer = client.post("/prompt", json={"image": image, **asked})
    assert answer.status_code == 422 and says in answer.json()["detail"]
    assert client.get(f"/images/{image}").json()["revision"] == 0


def test_several_runs_give_each_object_a_stability(
    client: TestClient, png: bytes, tiny: DiffusionInst
) -> None:
    image = added(client, png)
    asked = {"image": image, "steps": 2, "proposals": 20, "threshold": 0, "noises": 2}
    got = events(client, **asked)
    assert [kind for kind, _ in got] == ["encoded", "step", "done"]  # runs have no steps to show
    pixels = np.array(Image.open(io.BytesIO(png)))
    wanted = tiny.predict(pixels, steps=2, proposals=20, threshold=0.0, noises=2)
    assert wanted.stability is not None and len(wanted) > 1
    objects = client.get(f"/images/{image}").json()["objects"]
    assert [one["stability"] for one in objects] == wanted.stability.tolist()
    assert (got[-1][1]["steps"], got[-1][1]["proposals"]) == (2, 20)

    mine = objects[0]
    client.post(f"/images/{image}/edit", json={"action": "keep", "objects": [mine["id"]]})
    again = client.post("/predict", json=asked).json()["objects"]
    assert again[0] == {**mine, "id": again[0]["id"], "kept": True}
    assert len(again) > 1 and all(one["stability"] is not None for one in again)
    once = client.post("/predict", json={**asked, "noises": 1}).json()["objects"]
    assert once[0] == again[0] and all(one["stability"] is None for one in once[1:])
    del asked["steps"], asked["proposals"]
    for wrong in ({"noises": 9}, {"noises": 8, "steps": 9}, {"noises": 2, "seconds": 1}):
        refused = client.post("/predict", json={**asked, **wrong})
        assert refused.status_code == 422 and "noises" in refused.json()["detail"]
