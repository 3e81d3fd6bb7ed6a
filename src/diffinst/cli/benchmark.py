"""`diffinst benchmark`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import Count, Device, height_and_width, usable_device
from diffinst.cli.tables import print_benchmark
from diffinst.cli.terminal import say

if TYPE_CHECKING:
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.measure.benchmark import Measurement

Several = Annotated[tuple[Count, ...], Parameter(consume_multiple=True, negative=())]
Precisions = Annotated[
    tuple[Literal["fp32", "bf16", "auto"], ...], Parameter(consume_multiple=True, negative=())
]


def benchmark(
    model: str = "nano-nuclei",
    /,
    *,
    size: str = "800x1216",
    steps: Several = (1, 4),
    proposals: Several = (500,),
    detections: Several = (100,),
    batch: Several = (1,),
    precision: Precisions = ("fp32", "auto"),
    compiled: Annotated[bool, Parameter(name="compile", negative=())] = False,
    rounds: int = 5,
    memory: bool = True,
    device: Device = None,
    out: Path | None = None,
) -> None:
    """Time a model: in all, by part, and how far from what this machine can do.

    Example: diffinst benchmark nano-nuclei --size 512x512 --steps 1 4

    Every combination of the numbers is measured: decoding of the image excluded from the total
    (it is a part of its own), all masks painted at full size included.

    Parameters
    ----------
    model
        Name of shipped weights, a model folder, a file, a hub id; or a preset, with fresh weights.
    size
        HEIGHTxWIDTH of the image, which is not resized.
    steps
        Denoising steps.
    proposals
        Boxes to start from.
    detections
        Instances kept.
    batch
        Images at once.
    precision
        fp32, bf16, auto.
    compiled
        Measure each combination a second time, compiled.
    rounds
        Repetitions; the median is shown, and the range.
    memory
        Measure the peak memory too, in a process of its own.
    out
        JSON file for everything measured.
    """
    import torch

    from diffinst.acceleration.optimize import resolved
    from diffinst.io.atomic import write_json
    from diffinst.kernels.machine import machine
    from diffinst.measure import benchmark as bench
    from diffinst.measure.limits import measure_limits

    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: give a number from 1")
    place = usable_device(device)
    loaded = _load(model, place)
    sides = height_and_width(size)
    limits = {
        kind: measure_limits(loaded.device, dtype)
        for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    found: list[Measurement] = []
    ways = (False, True) if compiled else (False,)
    for s, p, d, b, kind, way in product(steps, proposals, detections, batch, precision, ways):
        chosen = resolved(kind, loaded.device)
        workload = bench.Workload(sides, s, p, d, b, chosen, way)
        if any(m.workload == workload for m in found):  # auto is one of the others
            continue
        measured = bench.measure(loaded, workload, limits[chosen], rounds)
        found.append(bench.with_memory(loaded, measured) if memory else measured)
    print_benchmark(found)
    if out is not None:
        content = {
            "model": model,
            "machine": machine(loaded.device),
            "limits": {kind: vars(values) for kind, values in limits.items()},
            "measurements": [m.as_dict() for m in found],
        }
        write_json(out, content)
        say(f"written: {out}")


def _load(model: str, device: str) -> DiffusionInst:
    from diffinst.config import preset_names
    from diffinst.inference.predictor import DiffusionInst

    if model in preset_names():
        return DiffusionInst.from_preset(model, device=device)
    return DiffusionInst.from_pretrained(model, device=device)
