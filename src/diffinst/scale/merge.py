"""A run's parts as one file for other tools; another format is another `Writer` and a `case`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, Protocol, TypeAlias

from pycocotools import mask as coco_mask

from diffinst.io.atomic import atomic_path
from diffinst.scale.fingerprint import Run, loaded
from diffinst.scale.messages import Instance, Row
from diffinst.scale.place import Place, place
from diffinst.scale.plan import Plan
from diffinst.scale.remote import is_uri
from diffinst.scale.rows import FOLDER, name_of, need_pyarrow, read_part

Format: TypeAlias = Literal["coco", "csv"]
COLUMNS = ("image_id", "path", "label", "class_name", "score", "x0", "y0", "x1", "y1", "area")


class Rows(Protocol):
    """The rows of a run that have a result, with their image ids; may be gone through again."""

    classes: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """(image id, row), in the plan's order; ids count from 1, those without result too."""


Writer: TypeAlias = Callable[[Rows, Path], None]
"""Writes the rows to a file, holding few of them at a time."""


def merge_run(
    out: str | Path,
    to: Format,
    file: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> tuple[Path, int]:
    """Write a finished run's results into one file.

    Args:
        out: The run's folder or URI.
        to: `coco`: an annotation file with run lengths and scores; `csv`: a line per instance.
        file: Where to; None: coco.json or instances.csv in the run's folder.
        progress: Called after each part that was read.

    Returns:
        The file, and how many images had no result and are not in it.

    Raises:
        AnotherRun: There is no run.
        TornPart: A part is damaged.
        ValueError: A part is missing, there is no such format, or no place for the file.
    """
    need_pyarrow()
    writer, name = writer_of(to)
    where = place(out)
    if file is None and is_uri(str(out)):
        raise ValueError(f"{out}: is an address; say where the file goes, --file {name}")
    target = Path(out) / name if file is None else file
    rows = RunRows(where, loaded(where), progress or (lambda: None))
    rows.check()
    with atomic_path(target) as temporary:
        writer(rows, temporary)
    return target, rows.failed


def writer_of(to: str) -> tuple[Writer, str]:
    """What writes a format, and how its file is called.

    Raises:
        ValueError: No such format.
    """
    match to:
        case "coco":
            return write_coco, "coco.json"
        case "csv":
            return write_csv, "instances.csv"
        case _:
            raise ValueError(f"--to {to}: there is no such format; allowed are coco and csv")


class RunRows:
    """The rows of a run's parts."""

    def __init__(self, where: Place, run: Run, progress: Callable[[], None]) -> None:
        self.where, self.run, self.classes = where, run, run.classes
        self.plan = Plan(where, run.shard_size)
        self.failed = 0
        self._progress = progress

    def check(self) -> None:
        """Refuse what is not finished."""
        there = self.where.names(FOLDER)
        names = [name_of(shard) for shard in range(self.plan.shards)]
        missing = [name for name in names if name.rpartition("/")[2] not in there]
        if missing:
            raise ValueError(
                f"{self.where}: {len(missing)} of {self.plan.shards} parts are missing "
                f"({missing[0]}); finish the run with the same `diffinst predict`, then merge"
            )

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        self.failed = 0
        for shard in range(self.plan.shards):
            first = shard * self.plan.shard_size + 1
            for place_, row in enumerate(read_part(self.where, shard, self.run.fingerprint)):
                if row.error is None:
                    yield first + place_, row
                else:
                    self.failed += 1
            self._progress()


def tight_box(row: Row, instance: Instance) -> tuple[float, float, float, float]:
    """The smallest box (x0, y0, x1, y1) around a mask; of an empty one the predicted box."""
    x, y, width, height = coco_mask.toBbox(
        {"size": [row.height, row.width], "counts": instance.rle}
    )
    if width == 0 or height == 0:
        return instance.box
    return float(x), float(y), float(x + width), float(y + height)


def write_coco(rows: Rows, file: Path) -> None:
    """COCO's annotation format, with the scores beside; category ids count from 1."""
    categories = [{"id": i, "name": name} for i, name in enumerate(rows.classes, start=1)]
    with open(file, "w", encoding="utf-8") as out:
        out.write('{"images": [')
        _write_all(out, (_coco_image(id_, row) for id_, row in rows))
        out.write('],\n"annotations": [')
        _write_all(out, _coco_annotations(rows))
        out.write(f'],\n"categories": {json.dumps(categories)}}}\n')


def _write_all(out: IO[str], entries: Iterator[dict[str, object]]) -> None:
    for i, entry in enumerate(entries):
        out.write(("," if i else "") + "\n" + json.dumps(entry))


def _coco_image(id_: int, row: Row) -> dict[str, object]:
    return {"id": id_, "file_name": row.path, "height": row.height, "width": row.width}


def _coco_annotations(rows: Rows) -> Iterator[dict[str, object]]:
    number = 0
    for id_, row in rows:
        for instance in row.instances:
            number += 1
            x0, y0, x1, y1 = tight_box(row, instance)
            yield {
                "id": number,
                "image_id": id_,
                "category_id": instance.label + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": instance.extras["area"],
                "iscrowd": 0,
                "score": instance.score,
                "segmentation": {"size": [row.height, row.width], "counts": instance.rle},
            }


def write_csv(rows: Rows, file: Path) -> None:
    """A line per instance, with the smallest box around its mask."""
    with open(file, "w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        for id_, row in rows:
            for one in row.instances:
                name = rows.classes[one.label]
                box = tight_box(row, one)
                area = int(one.extras["area"])
                table.writerow([id_, row.path, one.label, name, f"{one.score:.6f}", *box, area])
