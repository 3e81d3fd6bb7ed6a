"""Does the cost of a prediction grow as it should? Steps, proposals, instances kept, image size.

    python benchmarks/growth.py
    python benchmarks/growth.py plot

ResNet-50 on one image of 800 x 1216, as in `speed.py`, masks in boxes. Each round runs every
point once, so that other load on the machine hits all alike; medians are plotted, with
least-squares lines. The slope over steps is compared with one pass of the decoder, timed in the
same rounds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from cyclopts import App

from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine
from diffinst.kernels.memory import keep_freed_memory
from diffinst.measure.benchmark import (
    Measurement,
    Workload,
    noise_image,
    peak_gib,
    ready,
    with_memory,
)
from diffinst.measure.limits import Work

matplotlib.use("Agg")
from matplotlib import pyplot as plt

app = App()
RESULTS = Path(__file__).parent / "results"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
BASE = Workload()
STEPS = (1, 2, 4, 8)
PROPOSALS = (100, 300, 500, 1000)
KEPT = (1, 25, 50, 100)
LARGE = (4000, 6000)
LARGE_SIDES = (1333, 2666)  # of the network input: the preset's, twice as much
LABELS = {
    "steps": "denoising steps",
    "proposals": "proposals, 1 step",
    "kept": "instances drawn in their boxes",
}
Run = Callable[[], object]


@app.default
def growth(*, rounds: int = 5, memory: bool = True, results: Path = RESULTS) -> None:
    """Measure, write `growth.json`, plot.

    Args:
        rounds: Turns of each point, after one to warm up.
        memory: Peak memory over steps and of an image of 24 million pixels as well.
        results: Folder of the JSON file.
    """
    keep_freed_memory()  # as the commands do
    model = DiffusionInst.from_preset("r50-coco")
    points = {
        "steps": {n: replace(BASE, steps=n) for n in STEPS},
        "proposals": {n: replace(BASE, proposals=n) for n in PROPOSALS},
        "kept": {n: replace(BASE, detections=n) for n in KEPT},
    }
    image = noise_image(BASE.size)
    runs: dict[tuple[str, int], Run] = {}
    for axis, workloads in points.items():
        for n, workload in workloads.items():
            fast = ready(model, workload)
            runs[axis, n] = lambda fast=fast: fast.predict(image)  # type: ignore[misc]
    runs["decoder pass", 0] = decoder_pass(ready(model, BASE))
    seconds = race(runs, rounds)
    content: dict[str, Any] = {
        "machine": machine("cpu"),
        "seconds": {axis: {n: seconds[axis, n] for n in points[axis]} for axis in points},
        "decoder_pass": seconds["decoder pass", 0],
    }
    if memory:
        content["peak_gib"] = {n: peak(model, replace(BASE, steps=n)) for n in (1, 4, 8)}
        content["large"] = large()
    write_json(results / "growth.json", content)
    plot(results=results)


def decoder_pass(model: DiffusionInst) -> Run:
    """One pass through all stages with the base number of proposals."""
    network = model.network
    with torch.inference_mode():
        encoded = model.encode(noise_image(BASE.size)).encoded
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([BASE.size[1], BASE.size[0]])
    low = torch.rand(1, BASE.proposals, 2, generator=generator) * limit * 0.7
    boxes = torch.cat([low, low + limit * 0.3], -1)

    def run() -> None:
        with torch.inference_mode():
            network.denoise(encoded, boxes, torch.tensor([500]))

    return run


def race(runs: dict[tuple[str, int], Run], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Seconds of each, round by round; the first round is not counted."""
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    for i in range(rounds + 1):
        for key, run in runs.items():
            begin = time.perf_counter()
            run()
            if i:
                seconds[key].append(time.perf_counter() - begin)
    return seconds


def peak(model: DiffusionInst, workload: Workload) -> float:
    """GiB of a process that predicts once."""
    nothing = Measurement(workload, (0.0,), {}, Work(0, 0), 1.0)
    found = with_memory(model, nothing).peak_gib
    assert found is not None
    return found


def large() -> dict[str, dict[str, float]]:
    """Seconds and peak GiB of a huge image, by size of the network input and kind of masks."""
    found = {}
    for side in LARGE_SIDES:
        for painted in (False, True):
            command = [sys.executable, __file__, "huge", f"--long-side={side}"]
            command += ["--painted"] * painted
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{side} px, {'full-size masks' if painted else 'masks in boxes'}"] = json.loads(
                done.stdout
            )
    return found


@app.command
def huge(*, long_side: int, painted: bool = False) -> None:
    """Predict an image of 4000 x 6000 pixels in 4 steps; print seconds and peak GiB as JSON."""
    model = DiffusionInst.from_preset("r50-coco")
    sides: dict[str, object] = {"short_side": None, "zoom": 1.0, "long_side": long_side}
    model = DiffusionInst(model.network, model.config.updated(preprocess=sides)).optimize("fp32")
    image = noise_image(LARGE)
    begin = time.perf_counter()
    found = model.predict(image, steps=4, threshold=0.0)
    if painted:
        _ = found.masks
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_gib": peak_gib(model.device)}))


@app.command
def plot(*, results: Path = RESULTS, out: Path = PLOT) -> None:
    """Draw the plot and print the lines from the JSON."""
    content = json.loads((results / "growth.json").read_text("utf-8"))
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), constrained_layout=True, sharey=True)
    for axis, (name, label) in zip(axes, LABELS.items(), strict=True):
        numbers = np.array([int(n) for n in content["seconds"][name]], dtype=float)
        medians = np.array([statistics.median(s) for s in content["seconds"][name].values()])
        slope, start = np.polyfit(numbers, medians, 1)
        error = np.abs(medians - (start + slope * numbers)).max() / medians.mean()
        print(f"{name}: {start:.3f} s + {slope:.5f} s each, off by {error:.1%} at most")
        ends = np.array([0, numbers.max()])
        axis.plot(ends, start + slope * ends, color="0.6", linewidth=1)
        axis.plot(numbers, medians, "o", color="C0")
        axis.set(xlabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds an image")
    print(f"decoder pass: {statistics.median(content['decoder_pass']):.3f} s")
    print({key: content.get(key) for key in ("peak_gib", "large")})
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    app()
