"""`diffinst predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import usable_device
from diffinst.cli.terminal import say


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
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    compile_network: Annotated[bool, Parameter(name="compile", negative=())] = False,
) -> None:
    """Segment images or folders of images.

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
        Boxes to start from; more for crowded images. Default: the model's.
    threshold
        Only instances with at least this score. Default: the model's.
    max_detections
        At most so many an image.
    seed
        Of the starting noise.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one.
    precision
        fp32, bf16 (faster where the processor has it, nearly the same results), or auto: bf16 where
        this machine is faster with it.
    compile_network
        Compile the network at the first image of each size, which takes up to a minute: for
        thousands of images of a few sizes.
    """
    from diffinst.inference.folder import predict_folder
    from diffinst.inference.predictor import DiffusionInst

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    loaded = loaded.optimize(precision, compile_network=compile_network)
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
        f"{summary.instances} instances on {summary.images} images, "
        f"{summary.seconds_per_image:.2f} s an image\n"
        f"overlays   {out / 'overlays'}\nmasks      {out / 'masks'}\n"
        f"results    {out / 'results.json'}"
    )
    if summary.failed:
        say(f"{len(summary.failed)} images could not be read:")
        for line in summary.failed[:10]:
            say(f"  {line}")
        sys.exit(1)
