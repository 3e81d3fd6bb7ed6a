"""What a run will do, said before it starts: data, steps, rates, and what they will cost."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from diffinst.config import Config
from diffinst.datasets.split import Split, class_counts
from diffinst.training.loader import TrainBatch, TrainStream, collate
from diffinst.training.micro_batches import match_alone
from diffinst.training.module import DiffusionInstModule

TRIAL_IMAGES = 2
PATIENCE = 5.0  # seconds: a first pass that takes longer is not repeated to be more exact
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """Measured on one forward and backward pass over the first images of the stream.

    Attributes:
        seconds: Of one iteration, without waiting for data.
        peak_bytes: Of memory, on the GPU if there is one, else of the process.
        device: What was measured.
    """

    seconds: float
    peak_bytes: float
    device: str


def rehearse(module: DiffusionInstModule, data: Split, config: Config, processes: int) -> Cost:
    """Try one pass and scale it to a whole iteration; the module is left as it was.

    Args:
        module: To be trained.
        data: Training images.
        config: The run's.
        processes: That split a batch.
    """
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    micro = config.train.batch_size // (processes * config.train.accumulate)
    stream = TrainStream(data, config)
    count = min(micro, TRIAL_IMAGES)
    batch = collate([stream[k] for k in range(count)]).to(device)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    learning = sum(p.numel() * 4 for p in module.parameters() if p.requires_grad)
    everything = sum(p.numel() * p.element_size() for p in module.parameters())
    with torch.random.fork_rng(devices=[0] if on_gpu else []):
        module.to(device).train()
        before = _peak_bytes(device) + learning  # gradients stay, however large the batch
        seconds = _pass(module, batch, device)
        if seconds < PATIENCE:
            seconds = min(seconds, _pass(module, batch, device))
    activations = max(_peak_bytes(device) - before, 0.0)
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in module.named_buffers():
            value.copy_(buffers[name])
    module.to("cpu")
    parts = micro / count
    kept = 2 * learning + everything * bool(config.train.ema)  # AdamW keeps two numbers a weight
    return Cost(
        seconds * parts * config.train.accumulate,
        before + activations * parts + kept,
        torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads",
    )


def _pass(module: DiffusionInstModule, batch: TrainBatch, device: torch.device) -> float:
    begin = time.perf_counter()
    bf16 = module.config.train.precision == "bf16"
    train = module.config.train
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        if train.accumulate > 1 and module.config.criterion.pairs == "step":
            match_alone(module.step, batch)  # as of all parts, beforehand
        loss = module.step(batch.images, batch.targets, batch.draws).losses["loss"]
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _peak_bytes(device: torch.device) -> float:
    """Peak bytes so far."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return math.nan  # there is no such number
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)


def describe(
    config: Config,
    train: Split,
    val: Split | None,
    *,
    processes: int = 1,
    cost: Cost | None = None,
    given: Config | None = None,
) -> dict[str, str]:
    """The plan, a line per heading.

    Args:
        config: With the scaling rule applied.
        train: Training images.
        val: Images for evaluation.
        processes: That split a batch.
        cost: From `rehearse`.
        given: Before the scaling rule.
    """
    settings = config.train
    counts = class_counts(train)
    images = len(train.records)
    classes = ", ".join(
        f"{train.classes[k]} ({counts[k]})" for k in np.argsort(-counts, kind="stable")[:8]
    )
    more = f", and {len(train.classes) - 8} more" if len(train.classes) > 8 else ""
    micro = settings.batch_size // (processes * settings.accumulate)
    epochs = settings.iterations * settings.batch_size / max(images, 1)
    val_text = f"{len(val.records)} images, {val.annotation_file}" if val else "none"
    lines = {
        "train": f"{images} images, {train.annotation_file}",
        "val": val_text,
        "classes": f"{len(train.classes)}: {classes}{more} (images with each)",
        "steps": f"{settings.iterations} iterations of {settings.batch_size} images "
        f"({epochs:.1f} epochs), {settings.schedule} schedule, warm-up {settings.warmup}"
        + _warmup(given, config),
        "batch": f"{settings.batch_size} = {processes} process{'es' * (processes > 1)} x "
        f"{settings.accumulate} micro-batch{'es' * (settings.accumulate > 1)} x {micro}",
        "lr": f"{settings.lr:.3g}" + _scaling(given, config),
        "model": f"{config.model.backbone.name}, {config.model.decoder.stages} stages, "
        f"{settings.proposals} proposals, "
        + ("bf16" if settings.precision == "bf16" else "float32"),
    }
    beyond = [m for m in settings.milestones if m >= settings.iterations]
    if settings.schedule == "multistep" and beyond:
        lines["milestones"] = (
            f"{', '.join(map(str, beyond))}: beyond the last iteration, the rate does not drop "
            "there; set train.milestones (the paper's: 78 % and 93 % of the iterations) or "
            "train.schedule cosine"
        )
    crop = config.augment.crop_range[0]
    if config.augment.crop_probability and not config.augment.crop_short_sides:
        zoom = config.augment.zoom[1]
        small = sum(min(r.height, r.width) * zoom < crop for r in train.records)
        if small:
            lines["crop"] = (
                f"{small} of {images} images are smaller than the crop of {crop} even at zoom "
                f"{zoom:g}: they are used whole"
            )
    if cost is not None:
        total = cost.seconds * settings.iterations
        lines["time"] = (
            f"about {duration(total)} on {cost.device} "
            f"({cost.seconds:.2f} s an iteration, without evaluation)"
        )
    if cost is not None and not math.isnan(cost.peak_bytes):
        lines["memory"] = f"about {cost.peak_bytes / GIB:.1f} GiB a process"
    return lines


def _scaling(given: Config | None, config: Config) -> str:
    if given is None or given.train.scaling == "none":
        return ""
    rule, settings = given.train, config.train
    return (
        f" (linear scaling: {rule.lr:.3g} is for {rule.reference_batch_size} images, "
        f"{rule.iterations} iterations; here {settings.batch_size} images)"
    )


def _warmup(given: Config | None, config: Config) -> str:
    asked = config.train.warmup if given is None else given.train.scaled().warmup
    if asked == config.train.warmup:
        return ""
    return f" (train.warmup {asked} would not end within them: a tenth of them)"


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
