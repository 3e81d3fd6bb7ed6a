"""Predicting files and folders into a results folder: overlays, label maps, COCO results."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from typing_extensions import Unpack

from diffinst.config import OptionFields, Reading
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import remove_unfinished, write_json
from diffinst.io.images import ImageReadError, list_images
from diffinst.io.lock import alone_in
from diffinst.io.microns import microns_per_pixel
from diffinst.io.windows.geo import map_place, refuse_maps
from diffinst.results.convert import CocoResult
from diffinst.results.formats.choose import FOLDERS, FormatName, checked, folder_format
from diffinst.results.formats.names import Names
from diffinst.results.formats.scene import Format, Scene
from diffinst.results.instances import Instances

SAVERS = 2  # threads, beside a GPU; on a CPU the network leaves no core free, and they slow it
_OWN = ("overlays", "masks", *FOLDERS)  # folders that a run writes
UNSAVED = 8  # results that may wait for them


@dataclass(frozen=True)
class Predicted:
    """What a run over files did.

    Attributes:
        images: Segmented.
        instances: Found in all.
        seconds: Wall clock of the whole run.
        failed: One message per image that could not be read, or does not fit in memory.
        notes: What is to be told of how images were read, each text once.
        others: Files and folders of other formats, by format.
    """

    images: int
    instances: int
    seconds: float
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    others: Mapping[str, Path] = field(default_factory=dict)


def predict_folder(
    model: DiffusionInst,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    labels: bool = True,
    scores: bool = True,
    formats: Sequence[str] = (),
    **options: Unpack[OptionFields],
) -> Predicted:
    """Segment files and folders; an image that cannot be read is reported, the others go on.

    Images are read ahead in threads; on a GPU results are saved behind in others, while the network
    works.

    Args:
        model: Does the work.
        images: Files or folders.
        out: Gets overlays/, masks/ (16-bit label maps), results.json (COCO results) and index.json
            (image files by id, classes by id).
        reading: As in `DiffusionInst.predict`.
        progress: Called with (done, total) after each image.
        labels: Write classes into the overlays, where they fit.
        scores: Write scores there.
        formats: Files of other programs that `out` gets, too: see `results.formats.choose`.
        **options: As in `DiffusionInst.predict`.

    Raises:
        BlockingIOError: Another program is at work in `out`.
        NotADirectoryError: `out`, or a folder above it, is a file.
        ImageReadError: A path is empty or missing, or no image was found.
        ValueError: There is no such format, or a package that it needs is missing.
    """
    out = Path(out)
    chosen = dict.fromkeys(checked(name, "--as") for name in formats)
    refuse_file(out)
    files = [path for path in list_images(images) if not _is_own(path, out)]
    whole = [os.path.abspath(file) for file in files]
    if "geojson" in chosen:
        refuse_maps(files)
    names = Names(whole)
    called = [names.take(path) for path in whole]
    notes: dict[str, None] = {}
    found = model.predict_each(  # refuses wrong options
        files, keep_images=True, reading=reading, note=notes.setdefault, **options
    )
    others = [folder_format(name, out, model.class_names) for name in chosen]
    run = _Run(model, out, others, labels=labels, scores=scores)
    behind = model.device.type != "cpu"
    begin = time.perf_counter()
    with alone_in(out), ThreadPoolExecutor(SAVERS, "save") as threads:
        for folder in (out, *(out / kind for kind in _OWN)):
            remove_unfinished(folder)
        try:
            for i, (path, instances) in enumerate(found, start=1):
                try:
                    scene = _scene(path, instances, called[i - 1], i, list(chosen))
                except ImageReadError as error:
                    run.failed.append(str(error))
                else:
                    if scene.found.meta is not None and scene.found.meta.note:
                        notes.setdefault(scene.found.meta.note)
                    run.take(path, scene, threads if behind else None)
                progress(i, len(files))
        finally:
            run.finish()  # what is done stays, whatever stopped the rest
    seconds = time.perf_counter() - begin
    wrote: dict[str, Path] = {name: other.path for name, other in zip(chosen, others, strict=True)}
    failed, told = tuple(run.failed), tuple(notes)
    return Predicted(len(run.done), len(run.results), seconds, failed, told, wrote)


def _scene(
    path: Path,
    found: Instances | ImageReadError,
    names: tuple[str, str],
    image_id: int,
    formats: Sequence[FormatName],
) -> Scene:
    """An image's result with what the formats need to know of its file.

    Raises:
        ImageReadError: It could not be read, or says nothing of the map that it is.
    """
    if isinstance(found, ImageReadError):
        raise found
    mpp = microns_per_pixel(path) if formats else None
    transform, crs = map_place(path) if "geojson" in formats else (None, None)
    return Scene(found, *names, image_id, mpp, transform, crs)


class _Run:
    """What has been predicted so far, and the files it goes to."""

    def __init__(
        self,
        model: DiffusionInst,
        out: Path,
        others: Sequence[Format],
        *,
        labels: bool,
        scores: bool,
    ) -> None:
        self.classes = [{"id": i + 1, "name": name} for i, name in enumerate(model.class_names)]
        self.out, self.others = out, others
        self.labels, self.scores = labels, scores
        self.results: list[CocoResult] = []
        self.done: list[dict[str, object]] = []
        self.failed: list[str] = []
        self._saving: deque[tuple[Future[list[CocoResult]], dict[str, object], Scene]] = deque()

    def take(self, path: Path, scene: Scene, threads: ThreadPoolExecutor | None) -> None:
        """Save an image's overlay and label map: now, or in threads with a few that may wait."""
        height, width = scene.found.image_size
        entry: dict[str, object] = {"id": scene.image_id, "file_name": str(path)}
        entry |= {"height": height, "width": width}
        entry |= {} if scene.found.meta is None else {"run": asdict(scene.found.meta)}
        saving: Future[list[CocoResult]] = Future()
        if threads is None:
            saving.set_result(self._save(scene))
        else:
            saving = threads.submit(self._save, scene)
        self._saving.append((saving, entry, scene))
        while len(self._saving) > (0 if threads is None else UNSAVED):
            self._settle()

    def _save(self, scene: Scene) -> list[CocoResult]:
        found, name = scene.found, scene.name
        overlay = self.out / "overlays" / f"{name}.png"
        found.save(overlay, labels=self.labels, scores=self.scores)
        found.save_masks(self.out / "masks" / f"{name}.png")
        return found.to_coco(scene.image_id)

    def _settle(self) -> None:
        """Remember the results of the image that has waited longest, once its files are whole."""
        saving, entry, scene = self._saving.popleft()
        self.results += saving.result()
        self.done.append(entry)
        for other in self.others:
            other.add(scene)

    def finish(self) -> None:
        """Wait for all files, then write the COCO results and what their ids mean."""
        try:
            while self._saving:
                self._settle()
        finally:
            write_json(self.out / "results.json", self.results)
            write_json(self.out / "index.json", {"images": self.done, "categories": self.classes})
            for other in self.others:
                other.finish()


def refuse_file(out: Path) -> None:
    """Say at once that results cannot go where a file is."""
    for place in (out, *out.parents):
        if place.is_dir():
            return
        if place.exists():
            raise NotADirectoryError(
                f"{out}: {'is' if place == out else f'{place} is'} a file; results go into a "
                "folder, name one"
            )


def _is_own(path: Path, out: Path) -> bool:
    """Whether an image was written, or put there, by an earlier run into the same folder."""
    above = Path(os.path.realpath(path)).parents  # unlike `resolve` it takes links in a circle
    return any(Path(os.path.realpath(out / kind)) in above for kind in _OWN)
