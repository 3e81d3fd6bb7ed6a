"""What a prediction costs: time in all and by part, distance to the machine's limit, memory."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst.acceleration.optimize import Precision
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import read_image
from diffinst.kernels.memory import keep_freed_memory
from diffinst.measure.limits import Limits, Work, count
from diffinst.measure.stopwatch import Stopwatch
from diffinst.results.instances import Instances

GIB = 2**30


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        size: (height, width) of the image, which the network sees at this size.
        steps: Denoising steps.
        proposals: Boxes to start from.
        detections: Instances kept, as full-size masks.
        batch: Images at once.
        precision: As in `DiffusionInst.optimize`.
        compiled: Whether the network is compiled.
    """

    size: tuple[int, int] = (800, 1216)
    steps: int = 1
    proposals: int = 500
    detections: int = 100
    batch: int = 1
    precision: Precision = "fp32"
    compiled: bool = False


@dataclass(frozen=True)
class Measurement:
    """What it cost, of one call of `predict` and all masks at full size.

    Attributes:
        workload: What was measured.
        seconds: Of each round.
        parts: Seconds by part, medians of rounds of their own; empty if the network is compiled,
            as kernels then reach across parts.
        work: Floating-point operations.
        floor: Seconds that the work takes at the machine's peaks.
        peak_gib: Largest memory of a process that only does this (GPU memory on a GPU).
        idle_gib: The same before the first prediction: libraries, and loading the weights.
    """

    workload: Workload
    seconds: tuple[float, ...]
    parts: dict[str, float]
    work: Work
    floor: float
    peak_gib: float | None = None
    idle_gib: float | None = None

    @property
    def median(self) -> float:
        """Median seconds of a call."""
        return statistics.median(self.seconds)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "median": self.median}


def noise_image(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) RGB, colourful at every scale; what it shows costs no time either way."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (max(1, size[0] // 16), max(1, size[1] // 16), 3), np.uint8)
    smooth = Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(smooth)


def ready(model: DiffusionInst, workload: Workload) -> DiffusionInst:
    """The model made ready for a workload: precision, and no resizing."""
    config = model.config.updated(
        preprocess={"short_side": None, "zoom": 1.0, "long_side": max(workload.size)},
        sampler={"steps": workload.steps, "proposals": workload.proposals},
        postprocess={"threshold": 0.0, "max_detections": workload.detections},
    )
    return DiffusionInst(model.network, config).optimize(
        workload.precision, compile_network=workload.compiled
    )


def predict(model: DiffusionInst, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
    """What is timed: predictions with all masks painted at full size."""
    found = model.predict(list(images))
    for instances in found:
        _ = instances.masks
    return found


def measure(
    model: DiffusionInst, workload: Workload, limits: Limits, rounds: int = 5
) -> Measurement:
    """Time a workload: one call to warm up, then rounds in all, then rounds by part.

    Args:
        model: Any; it is made ready by `ready`.
        workload: What to do.
        limits: The machine's peaks at the workload's precision.
        rounds: How often; medians are reported.
    """
    fast = ready(model, workload)
    images = [noise_image(workload.size, i) for i in range(workload.batch)]
    if workload.compiled:
        torch.compiler.reset()  # kernels of other workloads would change this one's
        for _ in range(3):  # compiles, then records where that is done
            predict(fast, images)
    plain = ready(model, replace(workload, compiled=False)) if workload.compiled else fast
    work = count(lambda: predict(plain, images))  # warms up, too
    clock = Stopwatch(fast.device)
    seconds = []
    for _ in range(rounds):
        begin = clock.now()
        predict(fast, images)
        seconds.append(clock.now() - begin)
    parts = [] if workload.compiled else [_parts(fast, images) for _ in range(rounds)]
    names = parts[0] if parts else ()
    medians = {name: statistics.median(p[name] for p in parts) for name in names}
    return Measurement(workload, tuple(seconds), medians, work, limits.floor(work))


def _parts(model: DiffusionInst, images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Seconds by part, of reading the images from files and of `predict` as it is."""
    clock = Stopwatch(model.device)
    with tempfile.TemporaryDirectory(prefix="diffinst-benchmark-") as folder:
        for i, image in enumerate(images):
            Image.fromarray(image).save(Path(folder) / f"{i}.jpg")
        with clock.part("load"):
            loaded = [read_image(Path(folder) / f"{i}.jpg") for i in range(len(images))]
    with clock.watching(model.network):
        found = model.predict(loaded)
        with clock.part("full-size masks"):
            for instances in found:
                _ = instances.masks
    return clock.seconds


def with_memory(model: DiffusionInst, measurement: Measurement) -> Measurement:
    """The measurement with the peak memory of a process that does nothing else."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    with tempfile.TemporaryDirectory(prefix="diffinst-benchmark-") as folder:
        model.save_pretrained(folder)
        arguments = (there, folder, str(model.device), measurement.workload)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_remember, args=arguments, daemon=True)
        process.start()
        there.close()
        try:
            idle, peak = here.recv()
        except EOFError:
            raise MemoryError(
                f"the process that measures memory ended (exit code {process.exitcode}): perhaps "
                f"{measurement.workload} needs more than there is; lower size, batch or proposals"
            ) from None
        finally:
            process.join()
    return replace(measurement, idle_gib=idle, peak_gib=peak)


def _remember(answer: Connection, folder: str, device: str, workload: Workload) -> None:
    keep_freed_memory()  # as the commands do
    model = ready(DiffusionInst.from_pretrained(folder, device=device), workload)
    images = [noise_image(workload.size, i) for i in range(workload.batch)]
    idle = peak_gib(model.device)
    predict(model, images)
    answer.send((idle, peak_gib(model.device)))


def peak_gib(device: torch.device) -> float:
    """Largest memory so far: of this process, or allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    status = Path("/proc/self/status")
    if status.is_file():  # rusage would count what the parent held when it started this process
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GIB
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
