"""`diffinst predict --tiles`: its flags, and what it says at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from typing_extensions import TypedDict

from diffinst.cli.terminal import progress_bar, say
from diffinst.config import OptionFields, Reading

if TYPE_CHECKING:
    from diffinst.inference.predictor import DiffusionInst


class Tiling(TypedDict, total=False):
    """With --tiles; not given: as said."""

    tile: int
    """Side of a tile, in pixels at the model's scale (1024)."""
    overlap: int
    """Pixels that neighbouring tiles share (128); larger objects are stitched of pieces."""
    batch: int
    """Tiles that go through the network together (what suits the device)."""
    mpp: float
    """Micrometres per pixel of the image, in place of what the file says."""
    object_size: float
    """Typical diameter of the objects, in pixels of the image: tiles are resized to the model's."""
    level: int
    """Level of the file's pyramid to look at, 0 the finest; taken as the model's scale."""
    skip: Literal["auto", "flat", "tissue", "none"]
    """Tiles to pass over: flat ones; those without tissue, too; none (auto: tissue for slides)."""
    label_image: Literal["zarr", "tif", "none"]
    """The label image to write: OME-Zarr, tiled TIFF, or none (zarr)."""


def predict_slide(
    model: DiffusionInst,
    images: list[str],
    out: Path,
    reading: Reading,
    tiling: Tiling,
    options: OptionFields,
) -> None:
    """Predict one image in tiles, and say what was found and where it is.

    Raises:
        ValueError: Several images.
    """
    from diffinst.inference.tile_folder import predict_tile_folder
    from diffinst.inference.tile_plan import TileRequest

    if len(images) != 1:
        raise ValueError(
            f"--tiles is for one image at a time, here are {len(images)}; give one, and another "
            "--out for each"
        )
    given = dict(tiling)
    label_image = tiling.get("label_image", "zarr")
    given.pop("label_image", None)
    request = TileRequest(**given)  # type: ignore[arg-type]  # the same names and types
    with progress_bar("tiles") as advance:
        done = predict_tile_folder(
            model,
            images[0],
            out,
            request,
            reading=reading,
            label_image=label_image,
            progress=advance,
            **options,
        )
    seen = max(1, done.counts.tiles + done.counts.skipped)
    say(
        f"{done.counts.seams.objects} objects, {done.seconds / seen:.2f} s a tile"
        + (f", {done.resumed} rows of tiles were there already" if done.resumed else "")
    )
    for line in done.notes:
        say(f"  {line}")
    for file in done.files:
        say(f"{file.name:20} {file}")
