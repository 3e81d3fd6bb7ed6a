"""`diffinst predict --shards`, `diffinst merge` and `diffinst verify`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from diffinst.cli.options import Count, Processes
from diffinst.cli.terminal import EVERY, SHOWN, console, progress_bar, say, say_some
from diffinst.config import OptionFields, Reading

if TYPE_CHECKING:
    from diffinst.acceleration.optimize import Precision
    from diffinst.results.formats.choose import FormatName
    from diffinst.scale.merge import Merged
    from diffinst.scale.progress import Progress

_GROUP = Group("Many images", help="Any of these writes Parquet parts; see docs/scale.md.")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class Many:
    """How many images are shared out; any field that is given asks for parts.

    Attributes:
        shards: Write Parquet parts that survive any interruption, and go on where they end.
        workers: Processes, or actors on Ray; default: one a GPU, or else one a CPU core.
        on: local: processes of this machine; ray: a Ray cluster.
        shard: Only one slice of all parts, such as 3/64: for Slurm arrays, Kubernetes, ...
        shard_size: Images of a part; default: 32 to 4096, by their number.
        timeout: Seconds without an answer after which an image is given up; default: 300.
    """

    shards: Annotated[bool, Parameter(negative=())] = False
    """Write Parquet parts that survive any interruption, and go on where an earlier run ended."""
    workers: Processes | None = None
    """Processes, or actors on Ray; default: one a GPU, or else one a CPU core."""
    on: str | None = None
    """local (processes of this machine, the default) or ray (a Ray cluster)."""
    shard: str | None = None
    """Only one slice of all parts, such as 3/64: for Slurm arrays, Kubernetes, ..."""
    shard_size: Count | None = None
    """Images of a part; default: 32 to 4096, by their number."""
    timeout: float | None = None
    """Seconds without an answer after which an image is given up; default: 300."""

    @property
    def asked(self) -> bool:
        """Whether any of it was given."""
        return self != Many()


def slice_of(text: str | None) -> tuple[int, int] | None:
    """3/64 as two numbers.

    Raises:
        ValueError: It is something else, or no such slice.

    Example:
        >>> slice_of("3/64")
        (3, 64)
    """
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        last = f"{count}/{count}" if count else "64/64"
        raise ValueError(
            f"--shard {text}: give one slice of how many, from 1/{count or 64} to {last}"
        )
    return index, count


def predict_many(
    images: Sequence[str],
    out: Path,
    many: Many,
    formats: Sequence[str],
    *,
    model: str,
    options: OptionFields,
    reading: Reading,
    device: str | None,
    precision: Precision,
) -> None:
    """Predict into parts, then merge them into what is not there yet; say how it went."""
    from diffinst.scale.dataset import TIMEOUT, predict_dataset
    from diffinst.scale.merge import merge_run, merged_before

    place = address(out)
    files = _targets(formats, place, many)
    with _shown() as advance:
        done = predict_dataset(
            images,
            place,
            model=model,
            engine=many.on or "local",  # type: ignore[arg-type]  # refused there
            workers=many.workers,
            shard=slice_of(many.shard),
            shard_size=many.shard_size,
            timeout=TIMEOUT if many.timeout is None else many.timeout,
            device=device,
            precision=precision,
            reading=reading,
            progress=advance,
            say=say,
            **options,
        )
    rate = f"{done.images / done.seconds:.1f} images/s" if done.images else "nothing was left to do"
    earlier = f", {done.before} were there already" if done.before else ""
    say(
        f"{done.instances} instances on {done.images} images{earlier}, {done.errors} errors, "
        f"{rate}\n"
        f"parts      {place}/parts\nnext       diffinst verify {place}"
    )
    if done.repeated:
        say(f"{done.repeated} images were listed more than once; each was done once")
    for text in done.notes[:SHOWN]:
        say(f"note: {text}")
    known = merged_before(Path(place)) if files else set()
    todo = [name for name, file in files.items() if name not in known or not file.exists()]
    for name in files:
        if name not in todo:
            say(f"{name:<10} {files[name]}, merged before")
    if todo:
        with progress_bar("merging") as advance:
            _say_merged(merge_run(place, todo, progress=advance))


def _targets(formats: Sequence[str], place: str, many: Many) -> dict[FormatName, Path]:
    """Where a run's files of other programs go; refuses before the run what would be after it."""
    from diffinst.scale.merge import merged_before, refuse_written, targets
    from diffinst.scale.remote import is_uri

    if not formats:
        return {}
    files = targets(formats, Path(place), "--as")
    then = f"omit it, and then run `diffinst merge {place} --to {','.join(files)}`"
    if many.shard is not None:
        raise ValueError(f"--as: --shard {many.shard} is not the whole run; {then}")
    if is_uri(place):
        raise ValueError(f"--as: {place} is an address; {then} --out FOLDER")
    known = merged_before(Path(place))
    refuse_written({name: file for name, file in files.items() if name not in known})
    return files


def address(out: Path) -> str:
    """A folder, or a URI of which `Path` has dropped a slash.

    Example:
        >>> address(Path("s3://bucket/run"))
        's3://bucket/run'
    """
    from diffinst.scale.place import plain

    return re.sub("^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", plain(out.as_posix()))


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """A bar, or a line now and then where there is no terminal, with rate, time left and errors."""
    if console.is_terminal:
        columns = (TextColumn("segmenting"), BarColumn(), TextColumn("{task.description}"))
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("", total=None)
            yield lambda state: bar.update(
                task, completed=state.done, total=state.total, description=said(state)
            )
        return
    last = time.monotonic()

    def advance(state: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY or state.done == state.total:
            last = time.monotonic()
            say(f"segmenting {said(state)}")

    yield advance


def said(state: Progress) -> str:
    """A run's state for people."""
    left = "" if state.left is None else f", {_duration(state.left)} left"
    errors = f", {state.errors} errors" if state.errors else ""
    return f"{state.done}/{state.total}, {state.rate:.1f} images/s{left}{errors}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours}:{minutes:02}:{rest:02}"


def verify(run: str, /) -> None:
    """Check a run of `diffinst predict --shards`: every image exactly once, every file whole.

    Example: diffinst verify runs/many

    Parameters
    ----------
    run
        Its folder or address.
    """
    from diffinst.scale.verify import verify_run

    with progress_bar("verifying") as advance:
        found = verify_run(run, advance)
    say(f"{found.images} images, {found.errors} of them errors, {found.instances} instances")
    say_some(f"{len(found.problems)} problems:", found.problems)
    if found.problems:
        sys.exit(1)
    say("whole: every image once, every part as it was written")


def merge(
    run: str,
    /,
    *,
    to: Annotated[list[str], Parameter(negative=())],
    out: Path | None = None,
) -> None:
    """Put the parts of a finished run into files of other programs.

    Example: diffinst merge runs/many --to coco,yolo

    Parameters
    ----------
    run
        Its folder or address.
    to
        As predict's --as: coco, coco-masks, yolo, labelme, cvat, imagej, geojson, labels, csv,
        parquet; several after a comma or by several flags.
    out
        A folder that gets them; default: RUN.
    """
    from diffinst.scale.merge import merge_run

    with progress_bar("merging") as advance:
        merged = merge_run(run, split(to), out, advance)
    _say_merged(merged)


def split(values: Sequence[str]) -> list[str]:
    """Names of several flags, several of them after a comma.

    Example:
        >>> split(["coco,yolo", "csv"])
        ['coco', 'yolo', 'csv']
    """
    return [name for value in values for name in value.split(",")]


def _say_merged(merged: Merged) -> None:
    for name, file in merged.files.items():
        say(f"{name:<10} {file}")
    if merged.failed:
        say(f"{merged.failed} images have no result, their rows say why, and are not in it")
    if merged.blind:
        say(
            f"{merged.blind} images are gone, or others by now: their results are there without "
            "copy, brightness, size of a pixel and place on a map"
        )
