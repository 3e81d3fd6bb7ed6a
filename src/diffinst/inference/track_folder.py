"""Tracking a video into a results folder: overlay, MOT text, COCO results with track_id."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from PIL import Image
from typing_extensions import Unpack

from diffinst.config import OptionFields, Reading
from diffinst.inference.folder import refuse_file
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.track import PATIENCE, Frame
from diffinst.io.atomic import atomic_path, remove_unfinished, write_json, write_text
from diffinst.io.images import ImageReadError, ImageSource
from diffinst.io.listing import named
from diffinst.io.lock import alone_in
from diffinst.io.video import VideoWriter, frame_files, frame_rate, has_pyav, is_video, write_video
from diffinst.results.convert import CocoResult
from diffinst.results.tracks import CellTracks, VideoTracks, ids_of, joined, mot_lines

Layout: TypeAlias = Literal["coco-video", "ctc"]
CTC_FOLDER = "01_RES"
MANY = 1000  # frames, from which on label maps have four digits
_OWN = {
    "": r"(overlay\.mp4|tracks\.txt|(results|index|video_results)\.json)",
    "overlays": r"[0-9]{6,}\.png",
    CTC_FOLDER: r"(mask[0-9]{3,}\.tif|res_track\.txt)",
}
"""The files that a run may write, by their folder."""


@dataclass(frozen=True)
class Tracked:
    """What a run over a video did.

    Attributes:
        frames: Tracked.
        objects: Ids given.
        seconds: Wall clock of the whole run.
        overlay: The video, or the folder of images, with the objects drawn.
        notes: What is to be told, each text once.
    """

    frames: int
    objects: int
    seconds: float
    overlay: Path
    notes: tuple[str, ...]


def track_folder(
    model: DiffusionInst,
    video: Sequence[str | Path],
    out: str | Path,
    *,
    layouts: Collection[Layout] = (),
    patience: int = PATIENCE,
    reading: Reading | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    labels: bool = True,
    **options: Unpack[OptionFields],
) -> Tracked:
    """Track a video; what is done stays, whatever ends the run.

    The files of an earlier run go when the first frame is tracked.

    Args:
        model: Does the work.
        video: A video, a folder of frames or a file of several pages; or frames as files, in order.
        out: Gets overlay.mp4 (overlays/NUMBER.png without PyAV), tracks.txt (MOT), results.json
            (COCO results with track_id) and index.json (frames and classes by id).
        layouts: More of them: `coco-video` writes video_results.json, `ctc` 01_RES/.
        patience: Frames that an object may be missed.
        reading: As in `DiffusionInst.predict`.
        progress: Called with (done, total) after each frame; total None: not known.
        labels: Write the numbers of the objects into the overlays.
        **options: As in `DiffusionInst.track`.

    Raises:
        BlockingIOError: Another program is at work in `out`.
        NotADirectoryError: `out`, or a folder above it, is a file.
        ImageReadError: There are no frames, or nothing can be read.
        ValueError: No such layout, or a frame lies where a run writes.
    """
    unknown = sorted(set(layouts) - set(get_args(Layout)))
    if unknown:
        raise ValueError(f"layout {unknown[0]}; allowed are {', '.join(get_args(Layout))}")
    out = Path(out)
    refuse_file(out)
    _refuse_own(video, out)
    notes: dict[str, None] = {}
    source, total, rate = _source(video)
    tracked = model.track(
        source, patience=patience, reading=reading, note=notes.setdefault, **options
    )
    digits = 4 if total is None or total >= MANY else 3
    run = _Run(model, out, layouts, labels=labels, digits=digits)
    begin = time.perf_counter()
    with alone_in(out):
        for folder in _OWN:
            remove_unfinished(out / folder)
        try:
            with ExitStack() as stack:
                for frame in tracked:
                    if not run.frames:
                        _remove_own(out)
                    if not run.frames and has_pyav():
                        run.writer = stack.enter_context(write_video(out / "overlay.mp4", rate))
                    run.take(frame)
                    if frame.note:
                        notes[f"frame {frame.index}: {frame.note}"] = None
                    progress(len(run.frames), total)
        finally:
            if run.frames:
                run.finish()
    overlay = out / ("overlays" if run.writer is None else "overlay.mp4")
    seconds = time.perf_counter() - begin
    return Tracked(len(run.frames), len(run.ids), seconds, overlay, tuple(notes))


def _own(out: Path) -> Iterator[Path]:
    """The files in a folder that have the names of a run's; no links, which no run makes."""
    for folder, names in _OWN.items():
        for path in (out / folder).glob("*"):
            if re.fullmatch(names, path.name) and path.is_file() and not path.is_symlink():
                yield path


def _remove_own(out: Path) -> None:
    """Remove what an earlier run wrote, which would else mix with what this one writes."""
    for path in list(_own(out)):
        path.unlink(missing_ok=True)
    for folder in filter(None, _OWN):
        with contextlib.suppress(OSError):  # there is something else in it, or it is not there
            (out / folder).rmdir()


def _refuse_own(video: Sequence[str | Path], out: Path) -> None:
    """Refuse to track what the run itself would remove or replace.

    Raises:
        ValueError: A video or frame has the place and name of a file of a run; names it.
    """
    own = {os.path.realpath(path) for path in _own(out)}
    for given in map(named, video if own else ()):
        for path in frame_files(given) if given.is_dir() else [given]:
            if os.path.realpath(path) in own:
                raise ValueError(
                    f"{path}: is to be tracked, but results in {out} would replace it; choose "
                    "another folder"
                )


def _source(
    video: Sequence[str | Path],
) -> tuple[str | Path | Iterable[ImageSource], int | None, float]:
    """What is to be tracked, the number of its frames where it is known, and how many a second.

    Raises:
        ImageReadError: Nothing, or a folder or video among several.
    """
    paths = [named(path) for path in video]
    if len(paths) == 1:
        total = len(frame_files(paths[0])) if paths[0].is_dir() else None
        return paths[0], total, frame_rate(paths[0])
    for path in paths:
        if path.is_dir() or is_video(path):
            raise ImageReadError(
                f"{path}: is one of {len(paths)} that are to be tracked; give one video or folder, "
                "or the frames of one video as files"
            )
    return paths, len(paths), frame_rate("")


class _Run:
    """What has been tracked so far, and the files it goes to."""

    def __init__(
        self,
        model: DiffusionInst,
        out: Path,
        layouts: Collection[Layout],
        *,
        labels: bool,
        digits: int,
    ) -> None:
        self.classes = [{"id": i + 1, "name": name} for i, name in enumerate(model.class_names)]
        self.out, self.labels, self.digits = out, labels, digits
        self.writer: VideoWriter | None = None
        self.results: list[CocoResult] = []
        self.frames: list[dict[str, object]] = []
        self.lines: list[str] = []
        self.ids: set[int] = set()
        self.tracks = VideoTracks() if "coco-video" in layouts else None
        self.cells = CellTracks() if "ctc" in layouts else None

    def take(self, frame: Frame) -> None:
        """Draw a frame, and remember what is on it."""
        found, index = frame.result, frame.index
        name = str(found.path) if found.path is not None else f"frame {index}"
        height, width = found.image_size
        if found.image is not None:
            drawn = found.plot(labels=self.labels, scores=False)
        else:
            drawn = Image.new("RGB", (width, height))
        if self.writer is not None:
            self.writer.add(drawn)
        else:
            with atomic_path(self.out / "overlays" / f"{index:06d}.png") as temporary:
                drawn.save(temporary, format="PNG")
        if self.cells is not None:
            labels = self.cells.label_map(index, found)
            name_of_map = f"mask{index:0{self.digits}d}.tif"
            with atomic_path(self.out / CTC_FOLDER / name_of_map) as temporary:
                Image.fromarray(labels).save(temporary, format="TIFF")
        if self.tracks is not None:
            self.tracks.add(index, found)
        self.results += found.to_coco(index + 1)
        self.lines += mot_lines(index, found)
        self.ids |= set(ids_of(found).tolist())
        self.frames.append(
            {
                "id": index + 1,
                "video_id": 1,
                "frame_index": index,
                "file_name": name,
                "height": height,
                "width": width,
            }
        )

    def finish(self) -> None:
        """Write what is known of the frames so far."""
        index = {
            "videos": [{"id": 1, "length": len(self.frames)}],
            "images": self.frames,
            "categories": self.classes,
        }
        write_json(self.out / "results.json", self.results)
        write_json(self.out / "index.json", index)
        write_text(self.out / "tracks.txt", joined(self.lines))
        if self.tracks is not None:
            write_json(self.out / "video_results.json", self.tracks.results(len(self.frames)))
        if self.cells is not None:
            write_text(self.out / CTC_FOLDER / "res_track.txt", joined(self.cells.lines()))
