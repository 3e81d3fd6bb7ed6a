"""Does Ray do the same work, to the byte, and is it said where it is missing or was started?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.scale import predict_dataset
from diffinst.scale.ray_runner import cluster, need_ray


def test_ray_that_is_missing_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)  # as Python does where it is not installed
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ValueError, match=r"--on ray needs Ray.*pip install 'diffinst\[scale,ray\]'"
    ):
        need_ray()


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(ValueError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no Ray cluster"),
        cluster(print),
    ):
        pytest.fail("the block ran")


@pytest.mark.slow
def test_ray_gives_the_same_bytes(
    model: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: Callable[[Path], dict[str, bytes]],
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (images / "broken.png").write_bytes(b"no image")
    said: list[str] = []
    for engine in ("local", "ray"):
        done = predict_dataset(
            images,
            tmp_path / engine,
            model=model,
            engine=engine,
            workers=1,
            shard_size=2,
            device="cpu",
            say=said.append,
            proposals=6,
            max_detections=2,
            threshold=0.0,
        )
        # How many are found hangs on the seeds, and so on the times of the files.
        assert (done.images, done.errors) == (5, 1) and 0 < done.instances <= 8
    assert said == [
        "no Ray cluster is running here (RAY_ADDRESS is not set): starting one on this machine"
    ]
    assert parts(tmp_path / "local") == parts(tmp_path / "ray")
