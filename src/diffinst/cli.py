"""The command line: `diffinst predict | train | eval | convert | info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from diffinst.config import Config, preset_names

app = App(
    name="diffinst",
    help="Instance segmentation by denoising boxes and filters (DiffusionInst).",
    version_flags=["--version"],
)
console = Console(stderr=True, highlight=False)
Overrides = Annotated[Config | None, Parameter(name="*", negative_none="no-")]


@app.command
def predict(
    images: Annotated[list[Path], Parameter(consume_multiple=True)],
    /,
    *,
    model: str = "nano-nuclei",
    out: Path = Path("runs/predict"),
    steps: int | None = None,
    proposals: int | None = None,
    threshold: float | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Segment pictures or folders of pictures.

    Writes OUT/overlays/NAME.png, OUT/masks/NAME.png (16-bit label maps) and OUT/results.json (COCO
    format; image ids and class ids are explained in OUT/index.json).

    Parameters
    ----------
    images
        Files or folders (searched with their subfolders).
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        Where to write.
    steps
        Denoising steps; more may be better, each costs one decoder pass. Default: the model's.
    proposals
        Boxes to start from; more for crowded pictures. Default: the model's.
    threshold
        Only instances with at least this score. Default: the model's.
    max_detections
        At most so many a picture.
    seed
        Of the starting noise.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one.
    """
    from diffinst.inference.batch import predict_folder
    from diffinst.inference.predictor import DiffusionInst

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    summary = predict_folder(
        loaded,
        images,
        out,
        steps=steps,
        proposals=proposals,
        threshold=threshold,
        max_detections=max_detections,
        seed=seed,
    )
    say(
        f"{summary.instances} instances on {summary.pictures} pictures, "
        f"{summary.seconds_per_image:.2f} s a picture\n"
        f"overlays   {out / 'overlays'}\nmasks      {out / 'masks'}\n"
        f"results    {out / 'results.json'}"
    )
    if summary.failed:
        say(f"{len(summary.failed)} pictures could not be read:")
        for line in summary.failed[:10]:
            say(f"  {line}")
        sys.exit(1)


@app.command
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


@app.command(name="eval")
def evaluate(
    *,
    data: Path,
    model: str,
    split: str = "val",
    steps: int | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Mask and box AP (COCO) of a model on an annotated split.

    Parameters
    ----------
    data
        COCO-format folder.
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    split
        Which annotations.
    steps
        Denoising steps.
    proposals
        Boxes to start from.
    max_detections
        Counted per picture; 100 in COCO, more for crowded pictures.
    seed
        Of the starting noise.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one.
    out
        Folder for metrics.json and results.json.
    """
    from diffinst.data.coco import load_split
    from diffinst.evaluation.evaluator import evaluate as run
    from diffinst.inference.batch import progress_bar
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.atomic import write_json

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    annotated = load_split(data, split)
    with progress_bar("evaluating") as advance:
        report = run(
            loaded,
            annotated,
            steps=steps,
            proposals=proposals,
            max_detections=max_detections,
            seed=seed,
            progress=advance,
        )
    for name, value in report.as_dict().items():
        print(f"{name:<20} " + ("undefined" if value is None else f"{value:.4f}"))
    for name, value in report.mask.per_class.items():
        print(f"AP {name:<17} {value:.4f}")
    if out is not None:
        write_json(out / "metrics.json", report.as_dict())
        write_json(out / "results.json", report.results)
        say(f"written: {out / 'metrics.json'}, {out / 'results.json'}")


@app.command
def convert(file: Path, /, *, out: Path) -> None:
    """Turn official DiffusionInst weights, or an ImageNet backbone, into safe files of ours.

    Parameters
    ----------
    file
        .pth, .pkl or .safetensors; read without running any code in it.
    out
        Folder for config.json and model.safetensors, or for backbone.safetensors.
    """
    from diffinst import checkpoint
    from diffinst.convert import convert as run
    from diffinst.models.network import DiffusionInstNetwork

    converted = run(file)
    if converted.config is None:
        path = out / "backbone.safetensors"
        checkpoint.write_tensors(path, converted.tensors)
        say(
            f"backbone weights for timm's {converted.backbone}: {path}\n"
            f"use: --model.backbone.name {converted.backbone} --model.backbone.weights-file {path}"
        )
        return
    network = DiffusionInstNetwork(converted.config.model)
    checkpoint.fill(network, converted.tensors, source=str(file))
    checkpoint.save(network, converted.config, out)
    say(f"model folder: {out}\nnext: diffinst info {out}")


@app.command
def info(model: str, /) -> None:
    """What a model is: architecture, classes, sizes, defaults.

    Parameters
    ----------
    model
        Name of shipped weights, a model folder, a file, a hub id, or a preset.
    """
    import yaml

    from diffinst import checkpoint
    from diffinst.models.network import DiffusionInstNetwork

    if model in preset_names() and not Path(model).exists():
        chosen = Config.from_preset(model)
        network = DiffusionInstNetwork(chosen.model)
        print(f"preset {model}, fresh weights")
    else:
        network, chosen = checkpoint.load(model)
        print(f"model {checkpoint.locate(model)}")
    parameters = sum(p.numel() for p in network.parameters())
    print(f"parameters  {parameters / 1e6:.2f} M")
    print(f"classes     {chosen.model.num_classes}: {', '.join(chosen.model.names[:10])}")
    print(f"filter      {network.layout.size} numbers, layers {network.layout.shapes}")
    print(yaml.safe_dump(chosen.to_dict(), sort_keys=False, default_flow_style=None, width=100))


def say(text: str) -> None:
    """Lines for a person, on stderr: brackets as they are, paths never wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def with_fields(config: Config, fields: Config | None) -> Config:
    """The config with the fields given as flags, and only those, replaced."""
    if fields is None:
        return config
    return config.updated(**fields.model_dump(mode="json", exclude_unset=True))


def usable_device(name: str | None) -> str:
    """The device asked for, or a CUDA GPU if there is one.

    Raises:
        ValueError: No such device, or one without float64, which box maths needs.
    """
    import torch

    available = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if name is None:
        return available[-1]
    if name.split(":")[0] not in available:
        raise ValueError(f"--device {name}: not usable here; there is {', '.join(available)}")
    return name


def main() -> None:
    """Entry point: errors of the user's making are one clear line, not a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
