"""Is a model trained on what was corrected, and offered where it is better, to that session?"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from diffinst import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.lock import alone_in
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.serve.app import create_app
from diffinst.serve.cache import Cache, Key
from diffinst.serve.corrected import LEAST, Corrected, write_dataset
from diffinst.serve.limits import Limits
from diffinst.serve.models import MOST_TRAINED, Models
from diffinst.serve.objects import objects_of
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import Sessions, bytes_in
from diffinst.serve.train_run import Asked, Standing, train_and_score
from diffinst.serve.training import Trainings, seen_by

NewClient = Callable[..., TestClient]
Client: TypeAlias = httpx.Client | TestClient
COUNT = 6


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    """Noise: fresh weights find something there."""
    files = [io.BytesIO() for _ in range(COUNT)]
    for i, file in enumerate(files):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(file, format="PNG")
    return [file.getvalue() for file in files]


def accepted(client: Client, contents: list[bytes]) -> list[str]:
    """Images, each with the objects that a prediction found, accepted."""
    ids = []
    for i, content in enumerate(contents):
        added = client.post("/images", params={"name": f"{i}.png"}, content=content)
        ids.append(added.json()["id"])
        asked = {"image": ids[-1], "proposals": 20, "threshold": 0}
        found = client.post("/predict", json=asked).json()["objects"]
        keep = [one["id"] for one in found if one["area"] > 0][:2]
        assert keep
        edit = f"/images/{ids[-1]}/edit"
        client.post(edit, json={"action": "keep", "objects": keep})
        done = client.post(edit, json={"action": "accept", "threshold": 1})
        assert done.status_code == 200, done.text
    return ids


def wait_for(client: Client, *states: str) -> dict[str, Any]:
    until = time.monotonic() + 900
    while time.monotonic() < until:
        training: dict[str, Any] = client.get("/training").json()["training"]
        if training["state"] in states:
            return training
        time.sleep(0.2)
    raise AssertionError(f"still {training}")


def training_folder(root: Path) -> Path:
    (folder,) = root.glob("*/training/1")
    return folder


def test_too_few_images_are_refused_in_one_line(client: TestClient, contents: list[bytes]) -> None:
    assert client.post("/training", json={}).status_code == 404  # no session
    accepted(client, contents[: LEAST - 1])
    assert client.get("/training").json() == {
        "images": LEAST - 1, "least": LEAST, "busy": False, "training": None,
    }  # fmt: skip
    refused = client.post("/training", json={})
    assert refused.status_code == 409
    assert "needs at least 5 accepted images" in refused.json()["detail"]
    for path in ("/training/resume", "/training/stop"):
        assert client.post(path).status_code == 409


def test_more_than_allowed_is_refused(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, contents: list[bytes]
) -> None:
    limits = Limits(iterations=10)
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=limits))
    accepted(client, contents[:1])
    refused = client.post("/training", json={"iterations": 11})
    assert refused.status_code == 422 and "allows 10 at most" in refused.json()["detail"]
    unknown = client.post("/training", json={"model": "../tiny", "iterations": 5})
    assert unknown.status_code == 422 and "there is tiny" in unknown.json()["detail"]


@pytest.mark.slow
def test_a_training_runs_to_its_verdict_and_another_waits(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, contents: list[bytes]
) -> None:
    app = create_app({"tiny": tiny}, tmp_path / "s", limits=Limits(rate=1000))
    client, other = new_client(app), TestClient(app, base_url="http://127.0.0.1:8765")
    ids = accepted(client, contents)
    started = client.post("/training", json={"iterations": 4})
    assert started.status_code == 202, started.text
    told = started.json()
    assert (told["state"], told["name"], told["origin"]) == ("running", "tiny-trained-1", "tiny")
    assert (told["trained_on"], told["held_out"]) == (4, 2)
    assert str(tmp_path) not in started.text
    accepted(other, contents[:LEAST])
    busy = other.post("/training", json={"iterations": 4})
    assert busy.status_code == 409 and "one at a time" in busy.json()["detail"]
    assert other.post("/training/stop").status_code == 409  # it is not theirs

    done = wait_for(client, "done", "failed")
    assert done["state"] == "done", done["detail"]
    assert done["old"] is not None and done["new"] is not None
    names = [one["name"] for one in client.get("/models").json()["models"]]
    assert ("tiny-trained-1" in names) == (done["new"] > done["old"])
    folder = training_folder(tmp_path / "s")
    asked = Asked.read(folder)
    assert sorted([*asked.trained_on, *asked.held_out]) == sorted(ids)
    left = {path.name for path in folder.iterdir()}
    assert left - {"model"} == {"asked.json", "standing.json", "log.txt"}


@pytest.mark.parametrize("better", [True, False])
def test_the_better_model_is_kept_and_the_worse_one_is_not(
    tiny: DiffusionInst, tmp_path: Path, better: bool
) -> None:
    """The labels are what one model finds, so that one is the better."""
    sessions, session = Sessions(tmp_path / "s", 9, 10**9), Sessions.new_id()
    noise = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3)).astype(np.uint8)
    images = []
    for pixels in noise:
        found = tiny.predict(pixels)
        labels = objects_of(found[found.mask_crops.area() > 20][:2])
        assert labels
        images.append(Corrected(sessions.add(session, pixels, "a.png"), labels))
    folder, names = tmp_path / "training", tiny.class_names
    splits = dict.fromkeys(("train", "val"), images)
    write_dataset(folder / "data", sessions, session, splits, names)
    other = DiffusionInst.from_preset("tiny", seed=11)
    origin, run = (other, tiny) if better else (tiny, other)
    origin.save_pretrained(folder / "origin")
    run.save_pretrained(folder / "run")  # as a training leaves it
    ids = tuple(one.about.id for one in images)
    write_json(folder / "asked.json", asdict(Asked("new", "old", 5, ids, ids, names, 0.0)))
    Standing().write(folder)
    train_and_score(folder)
    standing = Standing.read(folder)
    assert standing.old is not None and standing.new is not None and standing.phase == "done"
    assert (standing.new > standing.old) == better and min(standing.old, standing.new) < 0.5
    assert (folder / "model").is_dir() == better and not (folder / "run").exists()
    if better:
        kept = DiffusionInst.from_pretrained(folder / "model")
        assert kept.predict(noise[0]) == tiny.predict(noise[0])


def test_a_training_sees_the_device_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    name = "CUDA_VISIBLE_DEVICES"
    assert seen_by(torch.device("cpu")) == {name: ""}
    assert seen_by(torch.device("cuda")) == {name: "0"}
    assert seen_by(torch.device("cuda:1")) == {name: "1"}
    monkeypatch.setenv(name, "4,GPU-7")
    assert seen_by(torch.device("cuda:1")) == {name: "GPU-7"}


def test_a_server_that_trains_nothing_says_so(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, contents: list[bytes]
) -> None:
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=Limits(iterations=0)))
    accepted(client, contents[:1])
    for path in ("/training", "/training/resume"):
        refused = client.post(path, json={})
        assert refused.status_code == 403 and "trains nothing" in refused.json()["detail"]


def until_checkpoint(folder: Path) -> None:
    checkpoint = folder / "run" / "checkpoints" / "last.ckpt"
    until = time.monotonic() + 900
    while not checkpoint.is_file():
        said = (folder / "log.txt").read_text()
        assert time.monotonic() < until and Standing.read(folder).phase != "failed", said
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stopped_one_can_go_on(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, contents: list[bytes]
) -> None:
    app = create_app({"tiny": tiny}, tmp_path / "s", limits=Limits(rate=1000))
    client = new_client(app)
    accepted(client, contents)
    client.post("/training", json={"iterations": 1000})
    folder = training_folder(tmp_path / "s")
    until = time.monotonic() + 900
    while Standing.read(folder).iteration == 0 and time.monotonic() < until:
        time.sleep(0.05)
    stopped = client.post("/training/stop").json()
    assert (stopped["state"], stopped["can_resume"]) == ("stopped", True)
    assert 0 < stopped["iteration"] < 1000 and stopped["loss"] > 0
    assert "tiny-trained-1" not in client.get("/models").text
    with alone_in(folder / "run"):  # nothing is at work there
        pass
    assert "all weights from" in log_of(folder)  # class layers, too, though the model has no names
    resumed = client.post("/training/resume").json()
    assert resumed["state"] == "running"  # from its start: there was no checkpoint yet
    while client.get("/training").json()["training"]["phase"] == "starting":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert client.get("/training").json()["training"]["phase"] == "training", log_of(folder)
    assert client.post("/training/stop").json()["state"] == "stopped"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_when_the_server_is_killed_the_next_one_says_so_and_goes_on(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, contents: list[bytes]
) -> None:
    tiny.save_pretrained(tmp_path / "tiny")
    sessions = tmp_path / "s"
    command = [sys.executable, "-m", "diffinst", "serve", "--port", "0", "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--model", str(tmp_path / "tiny"), "--folder", str(sessions)],
        stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        address = server.stderr.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=120) as first:
            accepted(first, contents)
            assert first.post("/training", json={"iterations": 60}).status_code == 202
            folder = training_folder(sessions)
            until_checkpoint(folder)
            cookies = dict(first.cookies)
    finally:
        server.send_signal(signal.SIGKILL)
        server.communicate()
    until = time.monotonic() + 60
    while (folder / "run" / ".diffinst.lock").is_file() and time.monotonic() < until:
        with contextlib.suppress(BlockingIOError), alone_in(folder / "run"):
            pass  # the training ends with its server, and its lock with it
        time.sleep(0.05)

    client = new_client(create_app({"tiny": tiny}, sessions, limits=Limits(rate=1000)))
    client.cookies.update(cookies)
    state = client.get("/training").json()
    assert state["busy"] is False and state["training"]["state"] == "interrupted"
    assert state["training"]["can_resume"] and state["images"] == COUNT
    assert client.post("/training/resume").json()["state"] == "running"
    done = wait_for(client, "done", "failed")
    assert done["state"] == "done", done["detail"]
    assert done["iteration"] == 60 and "goes on from its last checkpoint" in log_of(folder)


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def test_models_that_a_session_trained_are_its_own(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient, png: bytes
) -> None:
    """What a training leaves behind, as `train_run` writes it."""
    app = create_app({"tiny": tiny}, tmp_path)
    client, other = new_client(app), TestClient(app, base_url="http://127.0.0.1:8765")
    image = client.post("/images", content=png).json()["id"]
    theirs = other.post("/images", content=png).json()["id"]
    place = next(path.parent for path in tmp_path.glob(f"*/{image}"))
    for number, new in ((1, 0.4), (2, 0.2)):
        folder = place / "training" / str(number)
        DiffusionInst.from_preset("tiny", seed=7).save_pretrained(folder / "model")
        asked = Asked(f"tiny-trained-{number}", "tiny", 5, ("a",), ("b",), tiny.class_names, 0.0)
        write_json(folder / "asked.json", asdict(asked))
        Standing(phase="done", old=0.3, new=new).write(folder)
    names = [one["name"] for one in client.get("/models").json()["models"]]
    assert names == ["tiny", "tiny-trained-1"]  # the second one is worse than what it came from
    assert [one["name"] for one in other.get("/models").json()["models"]] == ["tiny"]

    body = {"image": image, "model": "tiny-trained-1", "proposals": 20, "threshold": 0}
    mine = client.post("/predict", json=body)
    given = client.post("/predict", json={**body, "model": "tiny"})
    assert mine.status_code == 200 and mine.json()["model"] == "tiny-trained-1"
    assert mine.json()["objects"] != given.json()["objects"]
    refused = other.post("/predict", json={**body, "image": theirs})
    assert refused.status_code == 422 and "not served here" in refused.json()["detail"]
    last = client.get("/training").json()["training"]
    assert (last["state"], last["old"], last["new"], last["better"]) == ("done", 0.3, 0.2, False)

    def cached() -> str:
        lines = client.get("/metrics").text.splitlines()
        return next(line.split()[1] for line in lines if line.startswith("diffinst_cache_images "))

    assert cached() == "2"
    for whose, name, status in ((other, "tiny-trained-1", 404), (client, "tiny", 403)):
        assert whose.delete(f"/models/{name}").status_code == status
    mine = client.post("/predict", json=body)  # what is there now is of the model that goes
    assert client.delete("/models/tiny-trained-1").status_code == 204
    assert cached() == "1"  # the other one would keep the model in memory
    assert [one["name"] for one in client.get("/models").json()["models"]] == ["tiny"]
    work = client.get(f"/images/{image}").json()
    assert work["model"] == "tiny-trained-1" and work["objects"] == mine.json()["objects"]
    assert client.get(f"/images/{image}/export").status_code == 200  # its classes are known still
    assert client.post("/predict", json=body).status_code == 422
    assert client.delete("/models/tiny-trained-1").status_code == 404
    assert client.post(f"/images/{image}/edit", json={"action": "accept"}).status_code == 200
    assert client.get("/training").json()["images"] == 1  # what it found can be trained on


def test_no_more_trained_models_are_in_memory_than_allowed(
    tiny: DiffusionInst, tmp_path: Path, png: bytes
) -> None:
    sessions, session = Sessions(tmp_path / "s", 9, 10**9), Sessions.new_id()
    sessions.add(session, np.zeros((48, 64, 3), np.uint8), "a.png")
    for number in range(1, MOST_TRAINED + 2):
        folder = sessions.folder_of(session) / "training" / str(number)
        tiny.save_pretrained(folder / "model")
        asked = Asked(f"tiny-trained-{number}", "tiny", 5, (), (), tiny.class_names, 0.0)
        write_json(folder / "asked.json", asdict(asked))
        Standing(phase="done", old=0.1, new=0.2).write(folder)
    cache = Cache(10**9)
    models = Models({"tiny": tiny}, Trainings(sessions, tiny.device), cache)
    for number in range(1, MOST_TRAINED + 2):
        model = models.get(session, f"tiny-trained-{number}")
        encoded = model.encode(np.zeros((48, 64, 3), np.uint8))
        cache.get(Key(session, str(number), "tiny"), itertools.repeat(encoded).__next__)
    assert len(cache) == MOST_TRAINED
    cache.get(Key(session, "1", "tiny"), lambda: tiny.encode(np.zeros((48, 64, 3), np.uint8)))
    assert cache.misses == MOST_TRAINED + 2  # of the model that was used longest ago


def enough(sessions: Sessions, session: str, model: DiffusionInst) -> list[Corrected]:
    """As many images as a training needs, with an object each."""
    images = []
    for i in range(LEAST):
        about = sessions.add(session, np.full((48, 64, 3), i, np.uint8), "a.png")
        images.append(Corrected(about, objects_of(square(model))))
    return images


def test_a_new_model_is_not_called_as_a_given_one(
    tiny: DiffusionInst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, session = Sessions(tmp_path / "s", 9, 10**9), Sessions.new_id()
    images = enough(sessions, session, tiny)
    trainings = Trainings(sessions, tiny.device)
    monkeypatch.setattr(trainings, "_spawn", lambda folder: None)
    taken = ("tiny-trained-1", "tiny")
    training = trainings.start(session, "tiny-trained-1", tiny, images, 5, taken)
    assert training.asked.name == "tiny-trained-2"


def test_a_training_that_is_refused_leaves_the_stopped_one_as_it_is(
    tiny: DiffusionInst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, session = Sessions(tmp_path / "s", 9, 10**9), Sessions.new_id()
    images = enough(sessions, session, tiny)
    trainings = Trainings(sessions, tiny.device)
    monkeypatch.setattr(trainings, "_spawn", lambda folder: None)
    stopped = trainings.start(session, "tiny", tiny, images, 5)
    Standing(phase="stopped").write(stopped.folder)
    before = bytes_in(sessions.folder_of(session))
    monkeypatch.setattr(trainings, "_sessions", Sessions(tmp_path / "s", 9, before // 2))
    with pytest.raises(Refused, match="remove images"):
        trainings.start(session, "tiny", tiny, images, 5)
    (last,) = trainings.of(session)
    assert last.can_resume and bytes_in(sessions.folder_of(session)) == before
    monkeypatch.setattr(trainings, "_sessions", Sessions(tmp_path / "s", 9, before + 5000))
    trainings.start(session, "tiny", tiny, images, 5)  # what the first one leaves is room for it
    assert [one.can_resume for one in trainings.of(session)] == [False, True]


def square(model: DiffusionInst) -> Instances:
    mask = torch.zeros(1, 48, 64, dtype=torch.bool)
    mask[0, 10:20, 10:20] = True
    masks = CroppedMasks.from_dense(mask)
    one = torch.ones(1)
    return Instances(masks.tight_boxes(), one, one.long() * 0, masks, (48, 64), model.class_names)
