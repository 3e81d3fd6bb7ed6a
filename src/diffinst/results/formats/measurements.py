"""Measures each object: size, shape and brightness, as a table in CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffinst.io.atomic import atomic_path
from diffinst.results.convert import NOTED, noted
from diffinst.results.formats.scene import Scene, missing
from diffinst.results.formats.spool import Spool

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.parquet import ParquetWriter

Row: TypeAlias = dict[str, str | int | float | None]

TEXTS = ("image", "class_name")
COUNTS = ("image_id", "object", "label", "area", "track_id")
LENGTHS = ("perimeter", "major_axis", "minor_axis")
COLUMNS = (
    *("image_id", "image", "object", "label", "class_name", "score", "x0", "y0", "x1", "y1"),
    *("area", *LENGTHS, "eccentricity"),
    *(f"{what}_{channel}" for what in ("mean", "max") for channel in ("red", "green", "blue")),
    *("microns_per_pixel", "area_um2", *(f"{name}_um" for name in LENGTHS)),
    *NOTED,
)
ROWS_TOGETHER = 50_000  # of a Parquet file: what a writer keeps


def need_skimage(format_: str) -> None:
    """Refuse to begin without the package.

    Raises:
        ValueError: Says what to install.
    """
    try:
        import skimage.measure  # noqa: F401
    except ImportError as error:
        raise missing(format_, "scikit-image", "measurements") from error


def measured(scene: Scene) -> Iterator[Row]:
    """One row for each object, with a value or None for each of COLUMNS.

    Lengths and areas are in pixels; in micrometres, too, where the scene knows their size. Axes are
    those of the ellipse of the same second moments. Brightness is that of the image as it is read,
    0 to 255 for each colour; None without the image. Of an object without pixels only the area, 0,
    is known. Track and doubt are there where the result has them.
    """
    from skimage.measure import regionprops

    found = scene.found
    image, boxes = _pixels(scene), found.tight().boxes.tolist()
    scores, labels, others = found.scores.tolist(), found.labels.tolist(), noted(found)
    for i, ((y, x), mask) in enumerate(found.mask_crops.placed()):
        row: Row = dict.fromkeys(COLUMNS)
        row |= {"image_id": scene.image_id, "image": scene.file_name, "object": i + 1}
        row |= {"label": labels[i], "class_name": found.class_names[labels[i]], "score": scores[i]}
        row |= dict(zip(("x0", "y0", "x1", "y1"), boxes[i], strict=True))
        row |= {"area": int(mask.sum()), "microns_per_pixel": scene.mpp, **others[i]}
        if mask.any():
            (shape,) = regionprops(mask.astype(np.uint8))
            row["perimeter"] = float(shape.perimeter)
            row["major_axis"] = float(shape.axis_major_length)
            row["minor_axis"] = float(shape.axis_minor_length)
            row["eccentricity"] = float(shape.eccentricity)
            if image is not None:
                row |= _brightness(image[y : y + mask.shape[0], x : x + mask.shape[1]][mask])
        if scene.mpp is not None:
            row |= _in_micrometres(row, scene.mpp)
        yield row


def _pixels(scene: Scene) -> NDArray[np.uint8] | None:
    """The image; None where there is none."""
    if scene.found.image is None and scene.found.path is None:
        return None
    return scene.found.pixels()


def _brightness(values: NDArray[np.uint8]) -> Row:
    """Of the pixels (n, 3) of an object."""
    row: Row = {}
    for channel, name in enumerate(("red", "green", "blue")):
        row[f"mean_{name}"] = float(values[:, channel].mean())
        row[f"max_{name}"] = float(values[:, channel].max())
    return row


def _in_micrometres(row: Row, mpp: float) -> Row:
    units = {"area": ("area_um2", mpp**2), **{name: (f"{name}_um", mpp) for name in LENGTHS}}
    return {
        there: value * unit
        for name, (there, unit) in units.items()
        if isinstance(value := row[name], int | float)
    }


class CsvFile:
    """One table for all images, as CSV in UTF-8; what is not known is an empty field."""

    def __init__(self, path: Path) -> None:
        need_skimage("csv")
        self.path, self._rows = path, Spool(path.parent)

    def add(self, scene: Scene) -> None:
        """Append the objects of an image."""
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(measured(scene))
        self._rows.add(text.getvalue())

    def finish(self) -> None:
        """Write the file."""
        with atomic_path(self.path) as temporary, open(temporary, "wb") as out:
            out.write(f"{','.join(COLUMNS)}\n".encode())
            self._rows.copy_to(out)


class ParquetFile:
    """One table for all images, as Parquet; what is not known is null."""

    def __init__(self, path: Path) -> None:
        need_skimage("parquet")
        try:
            import pyarrow.parquet as pq
        except ImportError as error:
            raise missing("parquet", "pyarrow", "measurements") from error
        self.path, self._pq = path, pq
        self._rows: list[Row] = []
        self._open = ExitStack()
        self._writer: ParquetWriter | None = None

    def add(self, scene: Scene) -> None:
        """Append the objects of an image."""
        self._rows += measured(scene)
        if len(self._rows) >= ROWS_TOGETHER:
            self._write()

    def _write(self) -> ParquetWriter:
        import pyarrow as pa

        if self._writer is None:
            temporary = self._open.enter_context(atomic_path(self.path))
            self._writer = self._pq.ParquetWriter(temporary, _schema(), compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_schema()))
        self._rows.clear()
        return self._writer

    def finish(self) -> None:
        """Write the file."""
        with self._open:
            self._write().close()


def _schema() -> Schema:
    import pyarrow as pa

    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(COUNTS, pa.int64())
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
