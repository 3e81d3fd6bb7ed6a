"""Predicting files and folders into a results folder: overlays, label maps, COCO results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.images import ImageReadError, list_images
from diffinst.results.instances import CocoResult, Instances


@dataclass(frozen=True)
class Summary:
    """What a run over files did.

    Attributes:
        images: Segmented.
        instances: Found in all.
        seconds_per_image: Wall clock of prediction alone.
        failed: One message per image that could not be read.
    """

    images: int
    instances: int
    seconds_per_image: float
    failed: tuple[str, ...]


def predict_folder(
    model: DiffusionInst,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    steps: int | None = None,
    proposals: int | None = None,
    threshold: float | None = None,
    max_detections: int | None = None,
    seed: int = 0,
) -> Summary:
    """Segment files and folders; an image that cannot be read is reported, the others go on.

    Args:
        model: Does the work.
        images: Files or folders.
        out: Gets overlays/, masks/ (16-bit label maps), results.json (COCO results) and index.json
            (image files by id, classes by id).
        steps: As in `DiffusionInst.predict`.
        proposals: As in `DiffusionInst.predict`.
        threshold: As in `DiffusionInst.predict`.
        max_detections: As in `DiffusionInst.predict`.
        seed: As in `DiffusionInst.predict`.
    """
    out = Path(out)
    files = [path for path in list_images(images) if not _is_own(path, out)]
    names = _unique_names(files)
    run = _Run(model, out)
    try:
        with progress_bar("segmenting", shown=len(files) > 1) as advance:
            for i, (path, name) in enumerate(zip(files, names, strict=True), start=1):
                begin = time.perf_counter()
                try:
                    found = model.predict(
                        path,
                        steps=steps,
                        proposals=proposals,
                        threshold=threshold,
                        max_detections=max_detections,
                        seed=seed,
                    )
                except ImageReadError as error:
                    run.failed.append(str(error))
                else:
                    run.seconds += time.perf_counter() - begin
                    run.take(i, path, name, found)
                advance(i, len(files))
    finally:
        run.write()  # what is done stays, whatever stopped the rest
    count = len(run.done)
    return Summary(count, len(run.results), run.seconds / max(count, 1), tuple(run.failed))


class _Run:
    """What has been predicted so far, and the files it goes to."""

    def __init__(self, model: DiffusionInst, out: Path) -> None:
        self.classes = [{"id": i + 1, "name": name} for i, name in enumerate(model.class_names)]
        self.out = out
        self.results: list[CocoResult] = []
        self.done: list[dict[str, object]] = []
        self.failed: list[str] = []
        self.seconds = 0.0

    def take(self, image_id: int, path: Path, name: str, found: Instances) -> None:
        """Save an image's overlay and label map, remember its results."""
        found.save(self.out / "overlays" / f"{name}.png")
        found.save_masks(self.out / "masks" / f"{name}.png")
        self.results += found.to_coco(image_id)
        height, width = found.image_size
        entry = {"id": image_id, "file_name": str(path), "height": height, "width": width}
        self.done.append(entry)

    def write(self) -> None:
        """The COCO results and what their ids mean."""
        write_json(self.out / "results.json", self.results)
        write_json(self.out / "index.json", {"images": self.done, "categories": self.classes})


def _is_own(path: Path, out: Path) -> bool:
    """Whether an image is the overlay or label map of an earlier run into the same folder."""
    return any((out / kind).resolve() in path.resolve().parents for kind in ("overlays", "masks"))


@contextmanager
def progress_bar(label: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields a function to call with (done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _unique_names(files: Sequence[Path]) -> list[str]:
    """Stems, with a number where two share one; letter case alone tells no files apart."""
    free = {path.stem.casefold() for path in files}  # stems not used yet: numbers avoid them too
    taken: set[str] = set()
    names = []
    for path in files:
        name, count = path.stem, 1
        while name.casefold() in taken or (count > 1 and name.casefold() in free):
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
