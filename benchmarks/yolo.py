"""How long does `nano` take for an image of 512 pixels, against YOLO11n-seg?

    python benchmarks/yolo.py --theirs /path/to/env/bin/python --out benchmarks/results/yolo.json

The baseline runs in an environment of its own (`pip install ultralytics`; its licence is the AGPL,
so it is no dependency) and in a process of its own. Both have random weights and the same image of
noise, and answer in turns: from the image in memory to full-size masks. At its usual threshold the
baseline finds nothing, which is its best case; at a threshold of 0 it makes 100 masks, as ours.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from cyclopts import App
from turns import Server, peak_gib

app = App()
SIZE = (512, 512)
Precision: TypeAlias = Literal["fp32", "bf16"]
OURS: tuple[Precision, ...] = ("fp32", "bf16")
THEIRS = {"YOLO11n-seg": 0.25, "YOLO11n-seg, 100 masks": 0.0}  # threshold of the score


@app.default
def measure(*, theirs: Path, out: Path | None = None, rounds: int = 30, threads: int = 2) -> None:
    """All in turns; prints a table.

    Args:
        theirs: Python of the environment that has `ultralytics`.
        out: JSON file.
        rounds: Turns that each has.
        threads: Of each process.
    """
    import torch

    from diffinst.io.atomic import write_json
    from diffinst.kernels.machine import machine

    servers = {}
    for precision in OURS:
        flags = [f"--precision={precision}", f"--threads={threads}"]
        servers[f"nano {precision}"] = Server([sys.executable, __file__, "ours", *flags])
    for name, threshold in THEIRS.items():
        flags = [f"--threshold={threshold}", f"--threads={threads}"]
        servers[name] = Server([str(theirs), __file__, "baseline", *flags])
    for _ in range(3):  # the first ones are slow
        for server in servers.values():
            server.ask("go")
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            times[name].append(server.ask("go"))
    table = {}
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times["YOLO11n-seg"], strict=True)]
        table[name] = {
            "ms": round(1000 * statistics.median(values), 1),
            "of_yolo": round(statistics.median(ratios), 2),
            "peak_gib": round(servers[name].close(), 2),
        }
        print(f"{name:24} {table[name]}")
    if out is not None:
        settings = {"size": SIZE, "proposals": 100, "rounds": rounds, "threads": threads}
        write_json(out, {**settings, "machine": machine(torch.device("cpu")), "results": table})


@app.command
def ours(*, precision: Precision, threads: int) -> None:
    """A prediction for each line on stdin; prints its seconds. An empty line ends it."""
    import torch

    from diffinst.inference.predictor import DiffusionInst
    from diffinst.measure.benchmark import Workload, noise_image, predict, ready

    torch.set_num_threads(threads)
    work = Workload(SIZE, steps=1, proposals=100, detections=100, precision=precision)
    model, image = ready(DiffusionInst.from_preset("nano"), work), noise_image(SIZE)
    answer(lambda: predict(model, [image]))


@app.command
def baseline(*, threshold: float, threads: int) -> None:
    """The same of YOLO11n-seg."""
    import numpy as np
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(threads)
    model = YOLO("yolo11n-seg.yaml")
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    most = {"conf": threshold, "max_det": 100, "imgsz": SIZE[0]}

    def run() -> object:
        (found,) = model.predict(image, verbose=False, retina_masks=True, device="cpu", **most)
        return None if found.masks is None else found.masks.data.bool()

    answer(run)


def answer(run: Callable[[], object]) -> None:
    """The seconds of a run for each line on stdin; for an empty one peak memory, and the end."""
    for line in sys.stdin:
        if not line.strip():
            print(peak_gib(), flush=True)
            return
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    app()
