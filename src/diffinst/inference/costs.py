"""What a step and the end of a prediction take on this machine: measured once, then kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.config import Options
from diffinst.diffusion.noise import Noise
from diffinst.inference.pipeline import Pipeline, Size
from diffinst.io.atomic import write_json
from diffinst.io.places import cache_folder
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment, with all work done that was asked for before."""
Points: TypeAlias = tuple[tuple[int, float], ...]

PROBES = (40, 200, 600, 2000)  # proposals
ROUNDS = 3
LONG_PROBE = 1.0  # seconds: after such a step no larger one is tried
FAR = 1_000_000  # boxes; costs go on as between the two largest that were measured


@dataclass(frozen=True)
class Costs:
    """Seconds over numbers of boxes, in rising order; between them they lie on straight lines.

    Attributes:
        step: Of one denoising step, by its proposals.
        end: From candidates to instances (NMS, rating, masks), by candidates.
    """

    step: Points
    end: Points

    def of_step(self, proposals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of a step with each number of proposals."""
        return _between(self.step, proposals)

    def of_end(self, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of the end with each number of candidates."""
        return _between(self.end, candidates)

    def scaled(self, step: float, end: float) -> Costs:
        """All times by two factors."""
        return Costs(
            tuple((count, seconds * step) for count, seconds in self.step),
            tuple((count, seconds * end) for count, seconds in self.end),
        )


def _between(points: Points, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = np.array(points).T
    slope = max(0.0, (y[-1] - y[-2]) / (x[-1] - x[-2]))
    found: NDArray[np.float64] = np.interp(counts, [*x, FAR], [*y, y[-1] + slope * (FAR - x[-1])])
    return found


def clock_of(device: torch.device) -> Clock:
    """The time when all that a device was asked for is done."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def measured(
    make: Callable[[Options], Pipeline],
    encoded: Encoded,
    options: Options,
    output: Size,
    clock: Clock,
) -> Costs:
    """Run steps and ends of growing size on an image; medians of a few rounds each.

    Args:
        make: The pipeline under some options.
        encoded: One image.
        options: What comes after the steps.
        output: (height, width) of the original image.
        clock: Tells the time.
    """
    step: list[tuple[int, float]] = []
    end: list[tuple[int, float]] = []
    for count in PROBES:
        probe = options.model_copy(update={"steps": 2, "times": None, "proposals": count})
        pipeline = make(probe)
        noise = Noise.draw([0], 2, count, pipeline.diffusion).to(encoded.scale.device)
        steps, ends = [], []
        for _ in range(ROUNDS + (not step)):  # the very first ones warm up
            begin = clock()
            first = next(pipeline.run(encoded, noise))
            between = clock()
            pipeline.instances(first.candidates, encoded, 0, output)
            steps.append(between - begin)
            ends.append(clock() - between)
        step.append((count, statistics.median(steps[-ROUNDS:])))
        end.append((count, statistics.median(ends[-ROUNDS:])))
        if len(step) > 1 and step[-1][1] > LONG_PROBE:
            break
    return Costs(tuple(step), tuple(end))


@dataclass(frozen=True)
class Shelf:
    """Where costs are kept from one program to the next: a small file for each key.

    Attributes:
        folder: None: the platform's cache folder.
    """

    folder: Path | None = None

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            RuntimeError: There is no home folder.
        """
        return (self.folder or cache_folder() / "costs") / f"{key}.json"

    def read(self, key: str) -> Costs | None:
        """What is kept; None: nothing, or nothing usable."""
        try:
            held = json.loads(self.path(key).read_text("utf-8"))
            costs = Costs(*(tuple((int(n), float(s)) for n, s in held[k]) for k in ("step", "end")))
        except (OSError, RuntimeError, ValueError, KeyError, TypeError):
            return None
        return costs if _usable(costs.step) and _usable(costs.end) else None

    def write(self, key: str, costs: Costs) -> None:
        """Keep costs; where nothing can be written they serve this program alone."""
        with contextlib.suppress(OSError, RuntimeError):
            write_json(self.path(key), {"step": costs.step, "end": costs.end})


def _usable(points: Points) -> bool:
    counts = [count for count, _ in points]
    rising = len(counts) > 1 and counts == sorted(set(counts)) and counts[-1] < FAR
    return rising and all(math.isfinite(s) and s >= 0 for _, s in points)


def key_of(
    network: DiffusionInstNetwork, encoded: Encoded, options: Options, output: Size, *, plain: bool
) -> str:
    """What costs hang on: weights, their type, machine, threads, sizes, what is kept.

    Args:
        network: On its device.
        encoded: One image; sizes count by the power of two nearest to their pixels.
        options: Of the end: masks that are rated, kept.
        output: (height, width) of the original image, which the end makes masks of.
        plain: Whether work is run as it is, and not replayed.
    """
    device = network.image_mean.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    about = (
        _fingerprint(network),
        platform.node(),
        str(device),
        gpu,
        torch.get_num_threads(),
        torch.__version__,
        plain,
        *(round(math.log2(max(1, h * w))) for h, w in (encoded.sizes[0], output)),
        (options.mask_quality > 0, options.threshold, options.max_detections),
    )
    return hashlib.sha256(repr(about).encode()).hexdigest()[:24]


def _fingerprint(network: DiffusionInstNetwork) -> str:
    """Names, types and shapes of all tensors, and a few numbers of the last stage's."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    last = network.decoder.stages[-1]
    for value in last.state_dict().values():
        digest.update(repr(value.flatten()[:4].tolist()).encode())
    return digest.hexdigest()
