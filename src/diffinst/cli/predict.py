"""`diffinst predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import usable_device
from diffinst.cli.terminal import progress_bar, say
from diffinst.config import OptionFields, Reading

Asked = Annotated[OptionFields, Parameter(name="*")]
SHOWN = 10  # notes, and images that could not be read


def predict(
    images: Annotated[list[str], Parameter(consume_multiple=True)],  # a Path of "" would be "."
    /,
    *,
    model: str = "nano-nuclei",
    out: Path = Path("runs/predict"),
    options: Asked = {},  # noqa: B006 (never written to)
    page: int | None = None,
    channel: int | None = None,
    project: Literal["max", "mean"] | None = None,
    stretch: Literal["percentile", "full"] | None = None,
    labels: bool = True,
    scores: bool = True,
    formats: Annotated[list[str], Parameter(name="--as", negative=())] = [],  # noqa: B006
    device: str | None = None,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    compile_network: Annotated[bool, Parameter(name="compile", negative=())] = False,
) -> None:
    """Segment images or folders of images.

    Example: diffinst predict my_images/ --model runs/mine/best --steps 4

    Writes OUT/overlays/NAME.png, OUT/masks/NAME.png (16-bit label maps) and OUT/results.json (COCO
    format; image ids and class ids are explained in OUT/index.json). What is not said of steps,
    proposals and so on is as the model has it.

    Parameters
    ----------
    images
        Files or folders (searched with their subfolders).
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        Where to write.
    page
        The page, slice or time of a file to read, counted from 0; default: the first.
    channel
        The one channel to read, counted from 0; default: all, where these are grey or RGB.
    project
        All pages of a file as one image: the brightest value at each pixel (max), or the mean.
    stretch
        Values of more than 8 bits: percentile stretches the range of each image, full keeps that of
        the type. Default of this and the three above: as the model has it.
    labels
        Write classes into the overlays, where they fit.
    scores
        Write scores into the overlays, where they fit.
    formats
        Files for other programs that OUT gets, too, several after a comma or by several flags:
        coco, coco-masks (without boxes), yolo, labelme, cvat, imagej, labels (TIFF), or tables of
        measurements: csv, parquet. docs/other-tools.md says what each holds.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one.
    precision
        fp32, bf16 (faster where the processor has it, nearly the same results), or auto: bf16 where
        this machine is faster with it.
    compile_network
        Compile the network at the first image of each size, which takes up to a minute: for
        thousands of images of a few sizes.
    """
    reading = Reading.of(page=page, channel=channel, project=project, stretch=stretch)
    from diffinst.inference.folder import predict_folder
    from diffinst.inference.predictor import DiffusionInst

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    loaded = loaded.optimize(precision, compile_network=compile_network)
    with progress_bar("segmenting") as advance:
        done = predict_folder(
            loaded,
            images,
            out,
            reading=reading,
            progress=advance,
            labels=labels,
            scores=scores,
            formats=[name for value in formats for name in value.split(",")],
            **options,
        )
    say(
        f"{done.instances} instances on {done.images} images, "
        f"{done.seconds / max(done.images, 1):.2f} s an image\n"
        f"overlays   {out / 'overlays'}\nmasks      {out / 'masks'}\n"
        f"results    {out / 'results.json'}"
    )
    for name, path in done.others.items():
        say(f"{name:<10} {path}")
    _list("notes:", done.notes)
    if done.failed:
        _list(f"{len(done.failed)} images could not be read:", done.failed)
        sys.exit(1)


def _list(title: str, lines: Sequence[str]) -> None:
    """The first lines below a title; nothing where there are none."""
    if not lines:
        return
    say(title)
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  and {len(lines) - SHOWN} more")
