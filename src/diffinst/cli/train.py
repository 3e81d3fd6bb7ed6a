"""`diffinst train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diffinst.cli.fields import Overrides, given
from diffinst.cli.options import Amount, Processes
from diffinst.cli.terminal import say

if TYPE_CHECKING:
    from diffinst.config import ConfigParts


def train(
    *,
    data: Path,
    preset: str | None = None,
    config: Path | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    out: Path = Path("runs/train"),
    resume: bool = False,
    pretrained: bool = True,
    single_class: Annotated[bool, Parameter(negative="")] = False,
    devices: Processes = 1,
    nodes: Processes = 1,
    overfit: Amount = 0,
    fast_dev_run: Annotated[bool, Parameter(negative="")] = False,
    epochs: Annotated[float | None, Parameter(show=False)] = None,
    fields: Overrides = None,
) -> None:
    """Train on your own images: COCO, Roboflow, LVIS and YOLO folders are found by looking.

    Example: diffinst train --data DATA --out runs/mine --train.iterations 7000

    Every field of the configuration is a flag, in groups below. The values shown for these flags
    are those of nano, the preset that runs if no other is named; with --preset, --config or --from
    theirs hold instead, and `diffinst info NAME --full` shows them.

    Parameters
    ----------
    data
        The folder, with a training split and, if possible, one for evaluation.
    preset
        Configuration to start from; nano, unless --config or --from say more.
    config
        YAML or JSON file to start from instead of a preset.
    from_
        Start from trained weights (a name, folder, hub id or official file), also of other classes.
    out
        Run folder; becomes a model folder when training ends.
    resume
        Go on from the last checkpoint in OUT.
    pretrained
        Start the backbone from ImageNet weights (--model.backbone.weights-file, or the hub).
    single_class
        Take all classes as one, named "object".
    devices
        GPUs a machine, or processes where there is no GPU.
    nodes
        Machines; run the same command on each, under torchrun or SLURM.
    overfit
        Train and evaluate on the first N images, without augmentation: does it learn at all?
    fast_dev_run
        Two iterations of everything, nothing kept: does it run at all?
    """
    if epochs is not None:
        raise ValueError(_iterations_instead(epochs, data, preset, config, given(fields)))
    from pytorch_lightning.utilities import rank_zero_only

    from diffinst.training.train import train as run

    done = run(
        data,
        preset=preset,
        config=config,
        origin=from_,
        out=out,
        resume=resume,
        pretrained=pretrained,
        single_class=single_class,
        devices=devices,
        nodes=nodes,
        overfit=overfit,
        fast_dev_run=fast_dev_run,
        announce=_announce,
        **given(fields),
    )
    speak = rank_zero_only(say)  # of several processes, the first
    if fast_dev_run:
        speak("everything ran: start the real run without --fast-dev-run")
        return
    speak(f"model folder: {done.folder}" + (f"\nbest on val:  {done.best}" if done.best else ""))
    one = " --single-class" if done.model.config.train.single_class else ""
    speak(f"next: diffinst eval --data {data} --model {done.best or done.folder}{one}")


def _announce(plan: Mapping[str, str]) -> None:
    for name, text in plan.items():
        say(f"{name:<8} {text}")


def _iterations_instead(
    epochs: float, data: Path, preset: str | None, config: Path | None, flags: ConfigParts
) -> str:
    """How many iterations that is on these data; the formula where they cannot be read."""
    from diffinst.config import Config
    from diffinst.datasets.load import load_split
    from diffinst.training.train import DEFAULT_PRESET

    start = Config.from_file(config) if config else Config.from_preset(preset or DEFAULT_PRESET)
    batch = start.updated(**flags).train.batch_size
    said = f"--epochs {epochs:g}: the length of training is train.iterations; "
    try:
        images = len(load_split(data, "train").records)
    except (ValueError, OSError):
        return f"{said}an epoch has IMAGES / {batch} of them (train.batch_size)"
    each = max(1, math.ceil(images / batch))
    return (
        f"{said}{images} images in batches of {batch} are {each} iterations an epoch: "
        f"--train.iterations {max(1, math.ceil(epochs * images / batch))}"
    )
