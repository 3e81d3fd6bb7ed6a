"""`diffinst train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffinst.cli.options import Overrides, given
from diffinst.cli.terminal import say


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
    devices: int = 1,
    nodes: int = 1,
    overfit: int = 0,
    fast_dev_run: Annotated[bool, Parameter(negative="")] = False,
    fields: Overrides = None,
) -> None:
    """Train on your own images: COCO, Roboflow, LVIS and YOLO folders are found by looking.

    Every field of the configuration is a flag, for example --train.lr 1e-4. The defaults shown for
    these flags are the paper's: what no flag names is taken from the preset (or the --config file),
    which may say otherwise; `diffinst info PRESET` shows it.

    Parameters
    ----------
    data
        The folder, with a training split and, if possible, one for evaluation.
    preset
        Configuration to start from; nano, unless --config or --from say more.
    config
        YAML or JSON file to start from instead of a preset.
    from_
        Start from trained weights (a name, folder, hub id or official file), also of other classes;
        or from backbone and pyramid of a COCO detector: torchvision:maskrcnn_resnet50_fpn (or
        ..._fpn_v2), transformers:facebook/mask2former-swin-base-coco-instance (tiny, small, large),
        a detectron2 .pkl.
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
