"""Is a second run kept out of a folder, and does a killed one leave nothing in the way?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from diffinst.config import Config
from diffinst.io.lock import LOCK_FILE
from diffinst.training import run_folder
from diffinst.training.fit import fit
from diffinst.training.run_folder import CHECKPOINT, held

Settings = Callable[..., Config]


@contextmanager
def running(data: Path, out: Path, settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in another process that has left a checkpoint and goes on; killed at the end."""
    line = [sys.executable, "-m", "diffinst", "train", "--data", data, "--config", settings]
    line += ["--out", out, "--no-pretrained"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(token) for token in line], env=environment, **quiet)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 240
        while not (out / CHECKPOINT).is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


def test_only_one_run_at_a_time_and_a_killed_one_is_no_obstacle(
    shapes: Path, quick: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = quick(iterations=100_000, checkpoint_every=1, workers=1)
    settings, out = tmp_path / "settings.json", tmp_path / "run"
    settings.write_text(json.dumps(chosen.to_dict()))
    with running(shapes, out, settings) as process:
        assert (out / LOCK_FILE).exists()
        before = (out / "run.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "LINGERING", 0.5)
            wrong = rf"at work on {out}; wait until it has finished \(process {process.pid} on"
            with pytest.raises(BlockingIOError, match=wrong):
                fit(shapes, chosen, out, resume=True, pretrained=False, progress=False)
        assert (out / "run.json").read_bytes() == before
    # killed: its data worker may still live for some seconds, and what it was writing is left
    left = [folder / ".x.0123abcd.tmp.y" for folder in (out, out / "checkpoints", out / "best")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of it")
    with held(out, resume=True):
        assert not any(path.exists() for path in left)
        assert (out / CHECKPOINT).is_file()
    assert not (out / LOCK_FILE).exists()


def test_a_run_that_ended_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).parent.mkdir()
    (tmp_path / CHECKPOINT).touch()
    with pytest.raises(FileExistsError, match="already holds a run"), held(tmp_path, resume=False):
        pytest.fail("the block ran")
    assert not (tmp_path / LOCK_FILE).exists()


def test_other_processes_of_a_run_do_not_hold_its_folder(
    shapes: Path, quick: Settings, tmp_path: Path
) -> None:
    """The second of two does not refuse the folder that the first one holds."""
    settings, out = tmp_path / "settings.json", tmp_path / "run"
    settings.write_text(json.dumps(quick(batch_size=2).to_dict()))
    line = [sys.executable, "-m", "diffinst", "train", "--data", shapes, "--config", settings]
    line += ["--out", out, "--no-pretrained", "--devices", 2]
    done = subprocess.run(
        [str(token) for token in line],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (out / LOCK_FILE).exists() and (out / "model.safetensors").is_file()
    assert done.stderr.count("model folder:") == 1
