"""`diffinst train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffinst.cli.options import Overrides, with_fields
from diffinst.cli.terminal import say
from diffinst.config import Config

DEFAULT_PRESET = "nano"


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
    from pytorch_lightning.utilities import rank_zero_only

    from diffinst.training.fit import RUN_FILE, best_model, fit
    from diffinst.weights.transfer import Origin

    if preset and config:
        raise ValueError("--preset and --config both say where to start; give one of them")
    if resume and (preset or config or from_):
        raise ValueError(
            "--resume goes on with the settings of the run; leave --preset, --config, --from away"
        )
    origin = Origin.read(from_) if from_ else None
    if resume and (out / RUN_FILE).is_file():
        chosen = Config.from_file(out / RUN_FILE)
    elif config:
        chosen = Config.from_file(config)
    elif preset or origin is None:
        chosen = Config.from_preset(preset or DEFAULT_PRESET)
    else:
        chosen = origin.config.updated(train={"single_class": False, "freeze": []})
    if origin is not None:  # its architecture, whatever the rest comes from
        chosen = chosen.updated(model=origin.config.model.model_dump(mode="json"))
    if single_class:
        chosen = chosen.updated(train={"single_class": True})
    settings = with_fields(chosen, fields)
    folder = fit(
        data,
        settings,
        out,
        resume=resume,
        pretrained=pretrained,
        origin=origin,
        devices=devices,
        nodes=nodes,
        overfit=overfit,
        fast_dev_run=fast_dev_run,
        announce=_announce,
    )
    speak = rank_zero_only(say)  # of several processes, the first
    if fast_dev_run:
        speak("everything ran: start the real run without --fast-dev-run")
        return
    best = best_model(folder)
    speak(f"model folder: {folder}" + (f"\nbest on val:  {best}" if best else ""))
    one = " --single-class" if settings.train.single_class else ""
    speak(f"next: diffinst eval --data {data} --model {best or folder}{one}")


def _announce(plan: Mapping[str, str]) -> None:
    for name, text in plan.items():
        say(f"{name:<8} {text}")
