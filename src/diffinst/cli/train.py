"""`diffinst train`."""

from __future__ import annotations

from pathlib import Path

from diffinst.cli.options import Overrides, with_fields
from diffinst.cli.terminal import say
from diffinst.config import Config


def train(
    *,
    data: Path,
    preset: str = "nano",
    config: Path | None = None,
    out: Path = Path("runs/train"),
    resume: bool = False,
    pretrained: bool = True,
    fields: Overrides = None,
) -> None:
    """Train on a COCO-format folder: {train,val}/ and annotations/instances_{train,val}.json.

    Every field of the configuration is a flag, for example --train.lr 1e-4. The defaults shown for
    these flags are the paper's: what no flag names is taken from the preset (or the --config file),
    which may say otherwise; `diffinst info PRESET` shows it.

    Parameters
    ----------
    data
        The folder.
    preset
        Configuration to start from.
    config
        YAML or JSON file to start from instead of a preset.
    out
        Run folder; becomes a model folder when training ends.
    resume
        Go on from the last checkpoint in OUT.
    pretrained
        Start the backbone from ImageNet weights (--model.backbone.weights-file, or the hub).
    """
    from diffinst.training.fit import RUN_FILE, fit

    if resume and (out / RUN_FILE).is_file():
        chosen = Config.from_file(out / RUN_FILE)
    else:
        chosen = Config.from_file(config) if config else Config.from_preset(preset)
    folder = fit(data, with_fields(chosen, fields), out, resume=resume, pretrained=pretrained)
    say(f"model folder: {folder}\nnext: diffinst eval --data {data} --model {folder}")
