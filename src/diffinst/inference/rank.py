"""Which images to label next: those whose objects depend most on the noise."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin
from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields, Reading
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_text
from diffinst.io.images import ImageReadError, list_images, read_image
from diffinst.results.instances import Instances
from diffinst.results.render.doubt import RARELY, draw_doubt
from diffinst.results.render.sheet import contact_sheet

NOISES = 8
TILE_WIDTH = 400  # pixels
SHEET = "_sheet.png"
"""How names of sheets end."""
_MARK = "Software", "diffinst rank"  # stands in the PNGs of sheets
COLUMNS = ("path", "doubt", "objects", "why")


@dataclass(frozen=True)
class Ranked:
    """One image.

    Attributes:
        path: Its file.
        doubt: See `doubt_of`; None: it could not be read.
        objects: Found by any run; None: it could not be read.
        why: The doubt in words, or why the image could not be read.
    """

    path: Path
    doubt: float | None
    objects: int | None
    why: str


@dataclass(frozen=True)
class Ranking:
    """All images, the most doubtful first, those that could not be read last.

    Attributes:
        rows: The images.
        first: What was found on the first of them, as many as were asked for.
        noises: Runs of each image.
        notes: What is to be told of how images were read, each text once.
    """

    rows: tuple[Ranked, ...]
    first: tuple[Instances, ...]
    noises: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Ranked, ...]:
        """Images that could not be read."""
        return tuple(row for row in self.rows if row.doubt is None)


def doubt_of(found: Instances) -> float:
    """The mean of 1 - stability * score over the objects, in [0, 1]; 0 where nothing was found.

    Raises:
        ValueError: The image was predicted from one noise.
    """
    if found.stability is None:
        raise ValueError("a prediction from one noise says nothing of doubt; predict with noises=8")
    if not len(found):
        return 0.0
    return float((1 - found.stability.double() * found.scores.double()).mean())


def why(found: Instances, noises: int) -> str:
    """In words what the doubt of an image comes from."""
    assert found.stability is not None
    if not len(found):
        return f"nothing found in {noises} runs"
    doubted = int((found.stability < 1).sum())
    if not doubted:
        return f"all {noises} runs found the same objects"
    rare = int((found.stability <= RARELY).sum())
    text = f"{doubted} of {len(found)} objects not found by all {noises} runs"
    return text + (f", {rare} by half of them or fewer" if rare else "")


def rank(
    model: DiffusionInst,
    images: Sequence[str | Path],
    *,
    show: int = 0,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    done: Callable[[Ranking], None] = lambda ranking: None,
    **options: Unpack[OptionFields],
) -> Ranking:
    """Predict every image from several noises, and order the images by how far the runs differ.

    Sheets of earlier rankings are left out.

    Args:
        model: Predicts.
        images: Files or folders.
        show: Images whose results are kept, the first of the ranking.
        reading: As in `DiffusionInst.predict`.
        progress: Called with (done, total) after each image.
        done: Gets the ranking of the images that are done, whatever ends the run.
        **options: As in `DiffusionInst.predict`; `noises` are 8 where not given.

    Raises:
        ConfigError: A value out of range, or one noise.
        ImageReadError: A path is empty or missing, or no image was found.
    """
    given = options.get("noises")
    noises = NOISES if given is None else given
    if noises == 1:
        raise ConfigError("noises is 1, but doubt is how far runs differ; give 2 or more")
    options["noises"] = noises
    listed = list_images(images)
    files = [path for path in listed if not (path.name.endswith(SHEET) and is_sheet(path))]
    if not files:
        raise ImageReadError(f"{listed[0]}: is the sheet of a ranking; give the images themselves")
    notes: dict[str, None] = {}
    rows: list[Ranked] = []
    kept: list[tuple[float, int, Instances]] = []
    each = model.predict_each(files, reading=reading, note=notes.setdefault, **options)
    try:
        for i, (path, found) in enumerate(each):
            if isinstance(found, ImageReadError):
                rows.append(Ranked(path, None, None, _without_path(str(found), path)))
            else:
                doubt = doubt_of(found)
                rows.append(Ranked(path, doubt, len(found), why(found, noises)))
                kept = sorted([*kept, (-doubt, i, found)], key=lambda item: item[:2])[:show]
            progress(i + 1, len(files))
    finally:
        rows.sort(key=lambda row: (row.doubt is None, -(row.doubt or 0.0)))  # stable: as listed
        ranking = Ranking(tuple(rows), tuple(found for *_, found in kept), noises, tuple(notes))
        if rows:
            done(ranking)
    return ranking


def _without_path(text: str, path: Path) -> str:
    return re.sub(rf"^{re.escape(str(path))}: ", "", text)


def write_ranking(ranking: Ranking, file: Path) -> None:
    """Write the table as CSV: path, doubt, objects, why; of unreadable images path and error.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in ranking.rows:
        doubt = "" if row.doubt is None else f"{row.doubt:.3f}"
        error = f"could not be read: {row.why}" if row.doubt is None else row.why
        name = os.fsencode(row.path).decode("utf-8", "backslashreplace")
        writer.writerow([name, doubt, "" if row.objects is None else row.objects, error])
    write_text(file, text.getvalue())


def is_sheet(file: Path) -> bool:
    """Whether a file is a sheet that `write_sheet` drew."""
    key, value = _MARK
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return bool(image.info.get(key) == value)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def write_sheet(ranking: Ranking, file: Path) -> bool:
    """Draw the first images with their doubtful objects marked; False: there are none to draw.

    Then an earlier sheet of that name is removed.

    Raises:
        OSError: The file cannot be written.
    """
    tiles: list[tuple[Image.Image, str]] = []
    by_path = {row.path.absolute(): row for row in ranking.rows}  # as results name their files
    for found in ranking.first:
        assert found.path is not None and found.stability is not None
        try:
            pixels = read_image(found.path, found.reading)
            canvas = draw_doubt(pixels, found, found.stability, ranking.noises, width=TILE_WIDTH)
        except ValueError:  # gone or changed since it was predicted
            continue
        row = by_path[found.path]
        lines = row.why.replace(", ", "\n")
        title = f"{len(tiles) + 1}. {found.path.name}\ndoubt {row.doubt:.2f}\n{lines}"
        tiles.append((canvas, title))
    if not tiles:
        if is_sheet(file):
            file.unlink(missing_ok=True)
        return False
    heading = (
        f"Most doubtful first; k/{ranking.noises}: runs that found the object. Grey: all, red: "
        "half of them or fewer"
    )
    sheet = contact_sheet(tiles, columns=min(4, len(tiles)), tile_width=TILE_WIDTH, heading=heading)
    about = PngImagePlugin.PngInfo()
    about.add_text(*_MARK)
    with atomic_path(file) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=about)
    return True
