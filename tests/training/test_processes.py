"""Is a run the same on two processes, in micro-batches, and after it was killed at any moment?"""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.training.fit import fit
from diffinst.weights import store

STEPS = 20
SEEDS = (2, 0, 4)  # the next is tried where a near tie parted the curves
COMMAND = (sys.executable, "-m", "diffinst", "train")
APART = 2e-5  # weights move by up to STEPS * lr = 4e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one size, so that every part of a batch is padded alike; some are empty."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=7, val=3, size=(64, 64), objects=(0, 3))


def config(**train: object) -> Config:
    """BatchNorm counts over a batch, so the mask branch normalises within groups."""
    small = {
        "iterations": STEPS,
        "batch_size": 4,
        "log_every": 1,
        "warmup": 2,
        "proposals": 10,
        "starts": {"prior": 0.2, "own": 0.3, "near": 0.3, "own_scores": [0.0, 0.01]},
        "lr": 2e-5,  # small steps: at 1e-4 a rounding of 1e-7 grows to 1e-3 within the 20
        "loggers": ["csv"],
        "checkpoint_every": STEPS,
    }
    return Config.from_preset("tiny").updated(
        model={"mask_branch": {"norm": "group"}, "backbone": {"norm": "frozen"}},
        augment={"short_sides": [64]},
        preprocess={"short_side": 64},
        sampler={"proposals": 10},
        train={**small, **train},
    )


def losses(out: Path) -> dict[int, dict[str, float]]:
    """All loss terms of each step."""
    with (out / "metrics.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("loss/total")]
    return {
        int(r["step"]): {k: float(v) for k, v in r.items() if k.startswith("loss/") and v}
        for r in rows
    }


def assert_same(one: Path, other: Path) -> None:
    first, second = losses(one), losses(other)
    assert first.keys() == second.keys() == set(range(STEPS))
    for step, terms in first.items():
        assert second[step] == pytest.approx(terms, rel=1e-4, abs=1e-4), f"step {step}"
    weights, others = (load_file(f / store.WEIGHTS_FILE) for f in (one, other))
    for name, value in weights.items():
        named = functools.partial("{}: {}".format, name)
        torch.testing.assert_close(others[name], value, rtol=0, atol=APART, msg=named)


def command(data: Path, settings: Path, out: Path, *more: object) -> list[str]:
    run = ["--data", data, "--config", settings, "--out", out, "--no-pretrained", *more]
    return [*COMMAND, *map(str, run)]


def resume(data: Path, out: Path) -> list[str]:
    return [*COMMAND, "--data", str(data), "--out", str(out), "--resume"]


def assert_same_on_a_seed(run: Callable[[int], Path], whole: Callable[[int], Path]) -> None:
    """Sums in another order differ by 1e-7, and on some seed that decides a near tie in a matching.

    Processors round differently, so no seed is free of that on all of them; a fault in how a batch
    is split parts the curves on every seed.
    """
    for seed in SEEDS:
        one, other = whole(seed), run(seed)
        try:
            assert_same(one, other)
        except AssertionError:
            if seed == SEEDS[-1]:
                raise
        else:
            return


def environment() -> dict[str, str]:
    with socket.socket() as probe:  # a free port for the processes to meet
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(port)}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run folder of one process with the whole batch, by seed."""
    done: dict[int, Path] = {}

    def run(seed: int) -> Path:
        if seed not in done:
            out = tmp_path_factory.mktemp("whole")
            fit(data, config(seed=seed), out, pretrained=False, progress=False)
            done[seed] = out
        return done[seed]

    return run


def test_two_processes_learn_like_one_with_the_whole_batch(
    data: Path, whole: Callable[[int], Path], tmp_path: Path
) -> None:
    def run(seed: int) -> Path:
        settings, out = tmp_path / f"{seed}.json", tmp_path / str(seed)
        settings.write_text(json.dumps(config(seed=seed).to_dict()))
        line = command(data, settings, out, "--devices", 2)
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        one, two = (json.loads((f / "metrics.json").read_text()) for f in (whole(seed), out))
        assert one.keys() == two.keys()  # every val image was scored once: the same precision
        return out

    assert_same_on_a_seed(run, whole)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_learn_like_the_whole_batch(
    data: Path, whole: Callable[[int], Path], tmp_path: Path, parts: int
) -> None:
    def run(seed: int) -> Path:
        chosen = config(accumulate=parts, seed=seed)
        return fit(data, chosen, tmp_path / str(seed), pretrained=False, progress=False).folder

    assert_same_on_a_seed(run, whole)


def test_federated_classes_are_drawn_for_the_whole_step(data: Path, tmp_path: Path) -> None:
    federated = {"class_loss": "federated_focal", "federated_classes": 2}
    outs = []
    for parts in (1, 2):
        chosen = config(accumulate=parts, iterations=3).updated(criterion=federated)
        done = fit(data, chosen, tmp_path / str(parts), pretrained=False, progress=False)
        outs.append(done.folder)
    one, two = (losses(out) for out in outs)
    for step in range(3):
        assert two[step] == pytest.approx(one[step], rel=1e-4, abs=1e-4)


def test_local_pairs_are_another_loss(
    data: Path, whole: Callable[[int], Path], tmp_path: Path
) -> None:
    seed = SEEDS[0]
    chosen = config(accumulate=2, seed=seed).updated(criterion={"pairs": "local"})
    fit(data, chosen, tmp_path, pretrained=False, progress=False)
    assert losses(tmp_path)[0] != pytest.approx(losses(whole(seed))[0], rel=1e-3)


def test_a_batch_that_cannot_be_shared_out_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(config(batch_size=3).to_dict()))
    line = command(data, tmp_path / "run.json", tmp_path / "out", "--devices", 2)
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "batch_size 3 cannot be split evenly over 2 processes" in done.stderr


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    data: Path, tmp_path: Path
) -> None:
    """SIGKILL as soon as a checkpoint is being written, three times, then once to the end."""
    chosen = config(iterations=12, checkpoint_every=1, eval_every=5, ema=0.9)
    settings = tmp_path / "run.json"
    settings.write_text(json.dumps(chosen.to_dict()))
    whole, out = tmp_path / "whole", tmp_path / "killed"
    # all of them on as many threads: sums in another order are another run
    subprocess.run(command(data, settings, whole), env=environment(), check=True, timeout=300)
    last = out / "checkpoints" / "last.ckpt"
    torn = 0
    for after in (2, 4, 3):
        line = resume(data, out) if last.is_file() else command(data, settings, out)
        torn += killed_while_writing(line, out, after)
        assert last.is_file()
        torch.load(last, weights_only=True)  # whole, whatever happened to the next one
    assert torn > 0  # at least once in the middle of a write
    subprocess.run(resume(data, out), env=environment(), check=True, timeout=300)
    assert losses(out) == losses(whole)
    weights, others = (load_file(f / store.WEIGHTS_FILE) for f in (whole, out))
    assert all(torch.equal(weights[k], others[k]) for k in weights)


def killed_while_writing(line: list[str], out: Path, after: int) -> bool:
    """Kill a run in its n-th checkpoint; whether a half-written one is left."""
    folder = out / "checkpoints"
    process = subprocess.Popen(
        line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seen: set[Path] = set()
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        seen |= set(folder.glob(".*.tmp.ckpt"))
        if len(seen) >= after:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    return any(p.exists() for p in seen)
