"""Do two processes give what one gives, each image once, and is a lost process noticed?"""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import pytest

from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Options, request
from diffinst.evaluation.run import Source, run
from diffinst.evaluation.store import Store, describe
from diffinst.evaluation.workers import devices, predict_in_processes, serve

OPTIONS = Options(steps=1, proposals=8, max_detections=5)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_what_one_gives(source: Source, shapes: Split, tmp_path: Path) -> None:
    lost = replace(shapes.records[4], path=tmp_path / "lost.png")
    split = replace(shapes, records=(*shapes.records[:4], lost, shapes.records[5]))
    calls: list[tuple[int, int]] = []
    two = run(
        source,
        split,
        tmp_path / "two",
        OPTIONS,
        processes=2,
        device="cpu",
        progress=lambda *call: calls.append(call),
    )
    one = run(source, split, tmp_path / "one", OPTIONS)
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
    source: Source, shapes: Split, tmp_path: Path
) -> None:
    asked = request(source.model.config, shapes, OPTIONS)
    store = Store(tmp_path, describe(source, shapes, asked, "cpu"))
    outcomes = predict_in_processes(source, list(shapes.records), asked, store.shards, ["cpu"])
    assert next(outcomes) is None
    (shard,) = store.shards.iterdir()
    os.kill(int(shard.name.split("-")[0]), signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"killed, .*\(exit code -9\); finished .* kept"):
        list(outcomes)
    done = store.read(range(1, 7))
    assert 1 in done and len(done) < 6
    report = run(source, shapes, tmp_path, OPTIONS)
    assert report.images == 6


def test_a_process_answers_every_image(source: Source, shapes: Split, tmp_path: Path) -> None:
    asked = request(source.model.config, shapes, OPTIONS)
    lost = replace(shapes.records[0], id=9, path=tmp_path / "lost.png")
    origin = source.folder, None, False, source.digest, source.config_digest
    ours, theirs = Pipe()
    for record in (shapes.records[0], lost, None):
        ours.send(record)
    serve(theirs, origin, "cpu", asked, tmp_path / "shards")
    answers = [ours.recv() for _ in range(3)]
    assert answers[:2] == [("ready", None), ("done", None)]
    assert answers[2][0] == "done" and "lost.png" in answers[2][1]
    assert not ours.poll()

    in_the_way = tmp_path / "file"
    in_the_way.touch()
    ours.send(shapes.records[0])
    serve(theirs, origin, "cpu", asked, in_the_way / "shards")
    answers = [ours.recv() for _ in range(2)]
    assert answers[1][0] == "failed" and str(in_the_way) in answers[1][1]

    other = source.folder, None, False, "0" * 64, source.config_digest
    serve(theirs, other, "cpu", asked, tmp_path / "none")
    other = source.folder, None, False, source.digest, "0" * 64
    serve(theirs, other, "cpu", asked, tmp_path / "none")
    for outcome, message in (ours.recv(), ours.recv()):
        assert outcome == "failed" and "not the model that the evaluation began with" in message

    ours.close()  # the parent is gone
    serve(theirs, origin, "cpu", asked, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_process_that_fails_says_why(source: Source, shapes: Split, tmp_path: Path) -> None:
    asked = request(source.model.config, shapes, OPTIONS)
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


def test_nothing_left_starts_no_process(source: Source, shapes: Split, tmp_path: Path) -> None:
    asked = request(source.model.config, shapes, OPTIONS)
    assert list(predict_in_processes(source, [], asked, tmp_path / "none", ["cpu"])) == []
    assert list(tmp_path.iterdir()) == []
