"""A finished run's parts as the files that `diffinst predict --as` writes, few rows at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffinst.config import Reading
from diffinst.io.atomic import write_json
from diffinst.io.lock import alone_with
from diffinst.io.microns import microns_per_pixel
from diffinst.io.one_line import one_line
from diffinst.io.windows.geo import map_place
from diffinst.results.convert import from_rle
from diffinst.results.formats.choose import (
    FOLDERS,
    FROM_IMAGE,
    MEASURED,
    SUFFIXES,
    FormatName,
    checked,
    folder_format,
)
from diffinst.results.formats.names import Names
from diffinst.results.formats.scene import Scene
from diffinst.results.instances import Instances
from diffinst.scale.fingerprint import Run, load, loaded
from diffinst.scale.messages import Row
from diffinst.scale.names import as_listed
from diffinst.scale.place import Place, place
from diffinst.scale.plan import Plan
from diffinst.scale.remote import is_uri, local_copy
from diffinst.scale.rows import FOLDER, name_of, need_pyarrow, read_part

TIFFS = (".tif", ".tiff")  # that may say where on a map they lie
MERGED = "merged.json"  # beside the files: the fingerprint of the run that each is of


@dataclass(frozen=True)
class Merged:
    """What was put together.

    Attributes:
        files: The file or folder of each format.
        images: In them.
        failed: Images without result, which are not in them.
        blind: Images whose files were needed and are gone, or others by now: nothing but the result
            is known of them.
    """

    files: dict[FormatName, Path]
    images: int
    failed: int
    blind: int


def merge_run(
    run: str | Path,
    to: Sequence[str],
    out: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Write a finished run's results as files of other programs.

    Args:
        run: Its folder or URI.
        to: Formats, as `results.formats.choose` has them.
        out: A folder that gets what they write; None: the run's.
        progress: Called with (done, total) after each part.

    Raises:
        AnotherRun: There is no run.
        TornPart: A part is damaged.
        BlockingIOError: Another program merges into the same folder.
        FileNotFoundError: The folder of the images is not there, and they are needed.
        ValueError: A part is missing, there is no such format, or a package is missing for it, no
            place for the files, or something is there already.
        OSError: Something cannot be written, or fetched; nothing of it is left.
    """
    need_pyarrow()
    if out is None and is_uri(str(run)):
        raise ValueError(f"{run}: is an address; name a folder for the files, --out FOLDER")
    folder = Path(run) if out is None else out
    files = targets(to, folder)
    where = place(run)
    about = loaded(where)
    plan = Plan(where, about.shard_size)
    _refuse_unfinished(where, plan)
    with alone_with(folder / "merge"), _unfinished(folder / ".merge.unfinished") as unfinished:
        refuse_written(files)
        formats = [folder_format(name, unfinished, about.classes) for name in files]
        for name in set(files).intersection(FOLDERS):  # there, even without any result
            (unfinished / name).mkdir()
        scenes = _Scenes(where, plan, about, tuple(files))
        for scene in scenes.each(progress):
            for format_ in formats:
                format_.add(scene)
        for format_ in formats:
            format_.finish()
        refuse_written(files)  # again: it may have come up meanwhile
        for format_, target in zip(formats, files.values(), strict=True):
            os.replace(format_.path, target)
        now = dict.fromkeys(files, about.fingerprint)
        write_json(folder / MERGED, _merged(folder) | now)
    return Merged(files, scenes.count, scenes.failed, scenes.blind)


def merged_before(run: Path) -> set[str]:
    """The formats that this run was merged into in its own folder."""
    about = load(place(run))
    if about is None:
        return set()
    return {name for name, of in _merged(run).items() if of == about.fingerprint}


def _merged(folder: Path) -> dict[str, str]:
    file = folder / MERGED
    found: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found


def targets(to: Sequence[str], folder: Path, flag: str = "--to") -> dict[FormatName, Path]:
    """The file or folder of each format that goes into a folder; nothing is touched.

    Raises:
        ValueError: There is no such format, or a package that it needs is missing.
    """
    if not to:
        raise ValueError(f"{flag}: no format is named; allowed are {', '.join(SUFFIXES)}")
    names = dict.fromkeys(checked(name, flag) for name in to)
    return {name: folder_format(name, folder, ()).path for name in names}


def _refuse_unfinished(where: Place, plan: Plan) -> None:
    there = where.names(FOLDER)
    names = [name_of(shard) for shard in range(plan.shards)]
    missing = [name for name in names if name.rpartition("/")[2] not in there]
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} of {plan.shards} parts are missing "
            f"({missing[0]}); finish the run with the same `diffinst predict`, then merge"
        )


def refuse_written(files: dict[FormatName, Path]) -> None:
    """Refuse to write over what is there.

    Raises:
        ValueError: Names it.
    """
    for file in files.values():
        if file.exists():
            raise ValueError(f"{file}: exists; remove it, or name another folder, --out FOLDER")


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A folder for what is not whole yet, empty now and gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Scenes:
    """The images of a run that have a result, as formats take them."""

    def __init__(self, where: Place, plan: Plan, run: Run, formats: tuple[FormatName, ...]) -> None:
        self.where, self.plan, self.run = where, plan, run
        self.from_image = not set(formats).isdisjoint(FROM_IMAGE)
        self.measured = not set(formats).isdisjoint(MEASURED)
        self.mapped = "geojson" in formats and any(map(_may_be_map, self._planned()))
        self.reading = Reading.model_validate(run.reading)
        self.count = self.failed = self.blind = 0

    def each(self, progress: Callable[[int, int], None]) -> Iterator[Scene]:
        """In the plan's order; image ids are places in it, those of images without result too."""
        root = self.run.root
        needed = self.from_image or self.mapped
        if needed and root and not is_uri(root) and not Path(root).is_dir():
            raise FileNotFoundError(
                f"{root}: the folder of the run's images is not there, and what is asked for needs "
                "them; bring it back, then merge"
            )
        shards = self.plan.shards
        names = Names(map(self._whole, self._planned()))
        for shard in range(shards):
            rows = read_part(self.where, shard, self.run.fingerprint)
            for number, row in enumerate(rows, start=shard * self.plan.shard_size + 1):
                name, file_name = names.take(self._whole(row.path))
                if row.error is not None:
                    self.failed += 1
                    continue
                self.count += 1
                with ExitStack() as stack:
                    found = result_of(row, self.run.classes)
                    if self.from_image or (self.mapped and _may_be_map(row.path)):
                        found = self._with_image(found, row, stack)
                    mpp = transform = crs = None
                    if found.path is not None:
                        mpp = microns_per_pixel(found.path)
                        transform, crs = map_place(found.path) if self.mapped else (None, None)
                    yield Scene(found, name, file_name, number, mpp, transform, crs)
            progress(shard + 1, shards)

    def _planned(self) -> Iterator[str]:
        return (item.path for i in range(self.plan.shards) for item in self.plan.shard(i))

    def _whole(self, path: str) -> str:
        listed = as_listed(path)
        return listed if is_uri(listed) else os.path.join(self.run.root, listed)

    def _with_image(self, found: Instances, row: Row, stack: ExitStack) -> Instances:
        """The result with the file that it is of, read again where it is measured."""
        path = self._file(row, stack)
        if path is not None:
            seen = replace(found, path=path, reading=self.reading)
            with suppress(ValueError):  # damaged by now, or of another size
                return replace(seen, image=seen.pixels()) if self.measured else seen
        self.blind += 1
        return found

    def _file(self, row: Row, stack: ExitStack) -> Path | None:
        """The image's file, fetched if it is an address; None: gone, or another one by now."""
        whole = self._whole(row.path)
        try:
            path = stack.enter_context(local_copy(whole)) if is_uri(whole) else Path(whole)
            size = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            raise
        except Exception as error:  # of each protocol's own kind
            said = one_line(str(error))
            raise OSError(f"{whole}: cannot be fetched ({said}); merge again") from error
        return path if row.bytes in (None, size) else None


def _may_be_map(path: str) -> bool:
    return path.lower().endswith(TIFFS)


def result_of(row: Row, classes: tuple[str, ...]) -> Instances:
    """A row's instances, as they were predicted."""
    assert row.height is not None and row.width is not None
    size, found = (row.height, row.width), row.instances
    return Instances(
        boxes=torch.tensor([one.box for one in found]).reshape(-1, 4),
        scores=torch.tensor([one.score for one in found], dtype=torch.float32),
        labels=torch.tensor([one.label for one in found], dtype=torch.int64),
        mask_crops=from_rle([{"size": [*size], "counts": one.rle} for one in found], size),
        image_size=size,
        class_names=classes,
    )
