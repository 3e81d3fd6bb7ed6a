"""`diffinst rank`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffinst.cli.options import Amount, Device, Precise, Read, usable_device
from diffinst.cli.predict import Asked
from diffinst.cli.terminal import SHOWN, progress_bar, say
from diffinst.config import Reading


def rank(
    images: Annotated[list[str], Parameter(consume_multiple=True)],
    /,
    *,
    model: str = "nano-nuclei",
    out: Path = Path("rank.csv"),
    sheet: Amount = 12,
    options: Asked = {},  # noqa: B006 (never written to)
    read: Read = {},  # noqa: B006 (never written to)
    device: Device = None,
    precision: Precise = "fp32",
) -> None:
    """Say which images to label next: every image is predicted from several noises.

    Example: diffinst rank unlabelled/ --model runs/mine/best --noises 8 --out rank.csv

    Writes OUT, a table of path, doubt, objects and why, the most doubtful image first, and beside
    it NAME_sheet.png, the first images with their doubtful objects marked. Doubt is the mean over
    an image's objects of 1 - stability x score. Images that cannot be read are rows with their
    error. Ended early, the table has the images that are done.

    Parameters
    ----------
    images
        Files or folders (searched with their subfolders).
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        The table, a .csv file.
    sheet
        Images on the sheet; 0: no sheet, and an earlier one is removed.
    """
    if out.suffix.lower() != ".csv" or out.is_dir():
        raise ValueError(f"--out {out}: the ranking is a table; name a .csv file")
    reading = Reading.of(**read)
    from diffinst.inference import rank as ranking
    from diffinst.inference.predictor import DiffusionInst

    drawing = out.with_name(f"{out.stem}{ranking.SHEET}")
    if sheet and drawing.exists() and not ranking.is_sheet(drawing):
        raise ValueError(
            f"{drawing}: is no sheet of an earlier ranking, and this one's would replace it; "
            "choose another --out, or give --sheet 0"
        )
    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    loaded = loaded.optimize(precision)
    written: list[str] = []

    def write(found: ranking.Ranking) -> None:
        ranking.write_ranking(found, out)
        written.append(f"table      {out}")
        if ranking.write_sheet(found, drawing):
            written.append(f"sheet      {drawing}")

    with progress_bar("ranking") as advance:
        found = ranking.rank(
            loaded, images, show=sheet, reading=reading, progress=advance, done=write, **options
        )
    for row in found.rows[:SHOWN]:
        if row.doubt is not None:
            say(f"{row.doubt:6.3f}  {row.path}  {row.why}")
    say("\n".join(written))
    for note in found.notes[:SHOWN]:
        say(f"note: {note}")
    if found.failed:
        say(f"{len(found.failed)} images could not be read; see the end of the table")
        sys.exit(1)
