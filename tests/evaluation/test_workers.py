"""Two processes give what one gives, each image once, and a lost process is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from ctypes import c_bool
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from diffinst.datasets.split import Split
from diffinst.evaluation.evaluate import evaluate
from diffinst.evaluation.prediction import Request, request
from diffinst.evaluation.source import Source
from diffinst.evaluation.store import Store, describe
from diffinst.evaluation.workers import devices, predict_in_processes, worker
from diffinst.weights.store import CheckpointError

OPTIONS: dict[str, Any] = {"steps": 1, "proposals": 8, "max_detections": 5}


@pytest.fixture
def asked(source: Source, shapes: Split) -> Request:
    return request(source.model.config, shapes, **OPTIONS)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_what_one_gives(source: Source, shapes: Split, tmp_path: Path) -> None:
    lost = replace(shapes.records[4], path=tmp_path / "lost.png")
    split = replace(shapes, records=(*shapes.records[:4], lost, shapes.records[5]))
    calls: list[tuple[int, int]] = []
    two = evaluate(
        source,
        split,
        out=tmp_path / "two",
        processes=2,
        device="cpu",
        progress=lambda *call: calls.append(call),
        **OPTIONS,
    )
    one = evaluate(source, split, out=tmp_path / "one", **OPTIONS)
    assert two.results == one.results and len(one.results) > 5
    assert two.mask == one.mask and two.box == one.box
    assert two.failed == one.failed and "lost.png" in two.failed[0]
    assert calls == [(done, 6) for done in range(7)]
    files = list((tmp_path / "two" / "predictions").iterdir())
    owners = Counter(path.name.split("-")[0] for path in files)
    assert str(os.getpid()) not in owners and max(owners.values()) == 1
    count = sum(len(path.read_text().splitlines()) for path in files)
    assert count == 5  # every image but the lost one, once


def test_a_process_that_is_killed_is_named_and_the_rest_is_kept(
    source: Source, shapes: Split, asked: Request, tmp_path: Path
) -> None:
    store = Store(tmp_path, describe(source, shapes, asked, "cpu"))
    outcomes = predict_in_processes(source, list(shapes.records), asked, store.shards, ["cpu"])
    assert next(outcomes) is None
    (shard,) = store.shards.iterdir()
    os.kill(int(shard.name.split("-")[0]), signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"killed, .*\(exit code -9\); finished .* kept"):
        list(outcomes)
    done = store.read(shapes)
    assert 1 in done and len(done) < 6
    report = evaluate(source, shapes, out=tmp_path, **OPTIONS)
    assert report.images == 6


def test_a_process_answers_every_image_until_it_is_to_stop(
    source: Source, shapes: Split, asked: Request, tmp_path: Path
) -> None:
    lost = replace(shapes.records[0], id=9, path=tmp_path / "lost.png")
    stop = c_bool(False)
    predict = worker(source.origin, "cpu", asked, tmp_path / "shards", stop)
    found, error = predict([shapes.records[0], lost])
    assert found is None and error is not None and "lost.png" in error
    stop.value = True  # the image at hand is finished
    assert predict([shapes.records[1], shapes.records[2]]) == [None]
    (shard,) = (tmp_path / "shards").iterdir()
    assert len(shard.read_text().splitlines()) == 2


@pytest.mark.parametrize("wrong", [-2, -1])
def test_another_model_is_refused(
    source: Source, asked: Request, tmp_path: Path, wrong: int
) -> None:
    origin: list[Any] = list(source.origin)
    origin[wrong] = "0" * 64  # the digest of its weights, of its configuration
    with pytest.raises(CheckpointError, match="not the model that the evaluation began with"):
        worker(cast("Any", tuple(origin)), "cpu", asked, tmp_path, c_bool(False))


def test_why_a_process_could_not_start_is_said(
    source: Source, shapes: Split, asked: Request, tmp_path: Path
) -> None:
    other = replace(source, digest="0" * 64)
    outcomes = predict_in_processes(other, shapes.records[:2], asked, tmp_path, ["cpu"])
    with pytest.raises(ChildProcessError, match=r"process failed: .* evaluation began with"):
        list(outcomes)


@pytest.mark.slow
def test_a_process_ends_with_its_parent(source: Source, shapes_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom diffinst.evaluation.evaluate import evaluate\n"
        "if __name__ == '__main__':\n    evaluate(*sys.argv[1:3], out=sys.argv[3], processes=2, "
        "steps=60, proposals=100, device='cpu')\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, str(script), str(source.folder), str(shapes_dir), str(out)]
    with subprocess.Popen(command) as process:
        while not list(out.glob("predictions/*")):
            assert process.poll() is None
            time.sleep(0.05)
        children = [int(path.name.split("-")[0]) for path in out.glob("predictions/*")]
        process.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_process_that_fails_says_why(
    source: Source, shapes: Split, asked: Request, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    outcomes = predict_in_processes(
        source, list(shapes.records), asked, in_the_way / "predictions", ["cpu"]
    )
    with pytest.raises(ChildProcessError, match=r"an evaluation process failed: .*file"):
        list(outcomes)


def test_devices_are_given_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, asked, expected in (
        (0, None, ["cpu", "cpu", "cpu"]),
        (2, None, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", ["cuda:1", "cuda:1", "cuda:1"]),
        (2, "cpu", ["cpu", "cpu", "cpu"]),
        (1, "cuda", ["cuda", "cuda", "cuda"]),
    ):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=gpus: count)
        assert devices(asked, 3) == expected


def test_nothing_left_starts_no_process(source: Source, asked: Request, tmp_path: Path) -> None:
    assert list(predict_in_processes(source, [], asked, tmp_path / "none", ["cpu"])) == []
    assert list(tmp_path.iterdir()) == []
