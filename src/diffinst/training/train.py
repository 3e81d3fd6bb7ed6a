"""Training in one call: what `diffinst train` does, with the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from typing_extensions import Unpack

from diffinst.config import Config, ConfigParts
from diffinst.training.fit import Trained, fit
from diffinst.training.progress import Progress, Tell
from diffinst.training.run_folder import RUN_FILE
from diffinst.weights.transfer import Origin

__all__ = ["Progress", "Trained", "train"]
DEFAULT_PRESET = "nano"


def train(
    data: str | Path,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    origin: str | Path | None = None,
    out: str | Path = "runs/train",
    resume: bool = False,
    pretrained: bool = True,
    single_class: bool = False,
    devices: int = 1,
    nodes: int = 1,
    overfit: int = 0,
    fast_dev_run: bool = False,
    progress: bool | Tell = True,
    announce: Callable[[Mapping[str, str]], None] | None = None,
    **parts: Unpack[ConfigParts],
) -> Trained:
    """Train on your own images: COCO, Roboflow, LVIS and YOLO folders are found by looking.

    Args:
        data: The folder, with a training split and, if possible, one for evaluation.
        preset: Configuration to start from; nano, unless `config` or `origin` say more.
        config: YAML or JSON file to start from instead of a preset.
        origin: Start from trained weights (a name, folder, hub id or official file), also of other
            classes, or from a detector of another library (`torchvision:maskrcnn_resnet50_fpn`);
            `--from` on the command line.
        out: Run folder, a model folder when training ends: config.json and model.safetensors, best/
            (the model with the best mask AP on val), checkpoints/, logs/, val_predictions/,
            metrics.json, run.json (the configuration), plan.json.
        resume: Go on from the last checkpoint in `out`.
        pretrained: Start the backbone from ImageNet weights (`model.backbone.weights_file`, or the
            hub).
        single_class: Take all classes as one, named "object".
        devices: GPUs a machine, or processes where there is no GPU.
        nodes: Machines; run the same program on each (torchrun, SLURM, or MASTER_ADDR and
            NODE_RANK).
        overfit: Train and evaluate on the first N images, without augmentation: a working
            set-up reaches a high AP soon.
        fast_dev_run: Two iterations of everything, nothing kept: does it run at all?
        progress: Show a bar with losses and remaining time; or who is told where training stands,
            about once a second and at the end.
        announce: Gets the plan before training starts; the plan tries one pass to tell the cost.
        **parts: Fields of parts of the configuration in place of what it says, as plain values.

    Returns:
        The best model on val (the last one where there is no val), its scores, the run folder.

    Raises:
        ConfigError: No such preset, or a wrong field; names it.
        CheckpointError: `origin` is not there or not usable.
        DatasetError: The data cannot be used.
        BlockingIOError: Another program is at work in `out`.
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: Nothing to resume.
        FloatingPointError: The loss stayed without a finite value.
        MemoryError: Says which field to lower.

    Example:
        >>> done = train("data/nuclei", out="runs/a", train={"iterations": 7000})  # doctest: +SKIP
        >>> done.metrics["mask/AP"], done.model.predict("image.png")  # doctest: +SKIP
    """
    if preset and config:
        raise ValueError("--preset and --config both say where to start; give one of them")
    start = Origin.read(origin) if origin else None
    chosen = _chosen(preset, config, start, Path(out) / RUN_FILE if resume else None)
    if single_class:
        chosen = chosen.updated(train={"single_class": True})
    return fit(
        data,
        chosen.updated(**parts),
        out,
        resume=resume,
        pretrained=pretrained,
        origin=start,
        devices=devices,
        nodes=nodes,
        overfit=overfit,
        fast_dev_run=fast_dev_run,
        num_classes=cast("int | None", parts.get("model", {}).get("num_classes")),
        progress=progress,
        announce=announce,
    )


def _chosen(
    preset: str | None, config: str | Path | None, origin: Origin | None, run: Path | None
) -> Config:
    """What the run starts from: its own earlier settings, a file, a preset, or trained weights."""
    named = preset or config or origin  # what was named is compared with the run's own by `fit`
    if run is not None and run.is_file() and not named:
        return Config.from_file(run)
    if config:
        chosen = Config.from_file(config)
    elif preset or origin is None:
        chosen = Config.from_preset(preset or DEFAULT_PRESET)
    else:
        chosen = origin.config.updated(train={"single_class": False, "freeze": []})
    chosen = chosen.updated(prompts={"sides": None}) if origin is not None else chosen
    return chosen if origin is None else origin.onto(chosen)
