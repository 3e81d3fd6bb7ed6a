"""`diffinst predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import usable_device
from diffinst.cli.terminal import progress_bar, say
from diffinst.config import OptionFields

Asked = Annotated[OptionFields, Parameter(name="*")]


def predict(
    images: Annotated[list[Path], Parameter(consume_multiple=True)],
    /,
    *,
    model: str = "nano-nuclei",
    out: Path = Path("runs/predict"),
    options: Asked = {},  # noqa: B006 (never written to)
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
    with progress_bar("segmenting") as advance:
        done = predict_folder(loaded, images, out, progress=advance, **options)
    say(
        f"{done.instances} instances on {done.images} images, "
        f"{done.seconds / max(done.images, 1):.2f} s an image\n"
        f"overlays   {out / 'overlays'}\nmasks      {out / 'masks'}\n"
        f"results    {out / 'results.json'}"
    )
    if done.failed:
        say(f"{len(done.failed)} images could not be read:")
        for line in done.failed[:10]:
            say(f"  {line}")
        sys.exit(1)
