"""Reads the frames of a video, a folder or a stack one at a time, and writes frames as mp4.

Videos go through PyAV (the extra `video`): it says where a file is damaged, which OpenCV's reader
does not tell from its end; it writes H.264, which browsers play; and it does not collide with the
other builds of OpenCV that packages bring along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import Reading
from diffinst.io.atomic import atomic_path
from diffinst.io.image_error import ImageReadError
from diffinst.io.images import read_image
from diffinst.io.listing import IMAGE_SUFFIXES, missing, named

if TYPE_CHECKING:
    import av

Pixels: TypeAlias = NDArray[np.uint8]

VIDEO_SUFFIXES = (
    ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"
)  # fmt: skip
FRAMES_PER_SECOND = 10
"""Of a written video whose frames came without a rate."""
SHORT = 2
"""Mean frames that a video may end before the time that was announced."""
READ = Reading(stretch="full", page=None, channel=None, project=None)
"""Of what has become RGB of eight bits: there is nothing left to choose."""
_CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that is there
_NEEDS = "; run `pip install 'diffinst[video]'`"


def is_video(path: str | Path) -> bool:
    """Whether a name ends as those of videos do."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def frames_of(
    source: str | Path, reading: Reading, note: Callable[[str], None]
) -> tuple[Iterator[Path | Pixels], Reading]:
    """The frames of a video, a folder, or a file of several pages, one at a time, in order.

    A folder gives its images (not those of folders in it) by name, numbers by their value, as
    files; the others give (height, width, 3) RGB.

    Args:
        source: A video, a folder, a TIFF or GIF.
        reading: How a frame is read; pages are frames, so it names none.
        note: Gets what is to be told.

    Returns:
        The frames, and how each of them is still to be read.

    Raises:
        ImageReadError: Nothing there, no frames, or nothing that can be read; says which.
    """
    path = named(source)
    if path.is_dir():
        return iter(frame_files(path)), reading
    if not path.exists():
        raise ImageReadError(missing(path))
    if is_video(path):
        _need_av(path)
        return _of_video(path, note), reading
    if reading.page is not None or reading.project is not None:
        raise ImageReadError(f"{path}: its pages are the frames; leave out page and project")
    return _of_pages(path, reading), READ


def frame_files(folder: Path) -> list[Path]:
    """The images in a folder, frame2 before frame10.

    Raises:
        ImageReadError: There are none; says where there are some.
    """
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if found:
        return sorted(found, key=_by_number)
    below = sorted({path.parent for s in IMAGE_SUFFIXES for path in folder.glob(f"*/*{s}")})
    instead = f"; {below[0]} holds some" if below else ""
    raise ImageReadError(
        f"{folder}: no frames in it; a video as a folder holds images (ending in "
        f"{' '.join(IMAGE_SUFFIXES)}), not folders of them{instead}"
    )


def _by_number(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _of_pages(path: Path, reading: Reading) -> Iterator[Pixels]:
    page = 0
    while True:
        try:
            yield read_image(path, Reading(page=page).over(reading))
        except ImageReadError as error:
            if page and f"has no page {page}" in str(error):
                return
            raise
        page += 1


def _of_video(path: Path, note: Callable[[str], None]) -> Iterator[Pixels]:
    import av

    count, end = 0, 0.0
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        said, problem = stream.frames, ""
        lasts = 0.0 if said else _announced(container, stream)
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    problem = "a frame is damaged"
                    break
                yield _upright(
                    np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), frame.rotation
                )
                count += 1
                end = (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0))
        except (av.error.FFmpegError, EOFError) as error:
            problem = getattr(error, "strerror", None) or str(error)
    if not count:
        raise ImageReadError(
            f"{path}: has no frame that can be read{f' ({problem})' if problem else ''}; copy or "
            "download it again"
        )
    if not problem and count < said:
        problem = f"{said} were announced"
    elif not problem and end * (1 + SHORT / count) < lasts:
        problem = f"{end:g} of the {lasts:g} seconds that were announced"
    if problem:
        note(f"{path}: ends after {count} frames ({problem}); those before are used")


def _announced(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds that a Matroska file (MKV, WebM) says its video lasts; 0: nothing is said."""
    import av

    if "matroska" not in container.format.name:  # others: counted from what is there
        return 0.0
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams) == 1  # else sound may be what lasts
    return (container.duration or 0) / av.time_base if alone else 0.0


def frame_rate(path: str | Path) -> float:
    """Frames a second of a video; `FRAMES_PER_SECOND` of everything else."""
    if not is_video(path) or not Path(path).is_file():
        return FRAMES_PER_SECOND
    with _opened(Path(path)) as container:
        rate = container.streams.video[0].average_rate
    return float(rate) if rate else FRAMES_PER_SECOND


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    _need_av(path)
    import av

    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ImageReadError(
            f"{path}: cannot be read as a video ({getattr(error, 'strerror', None) or error}); "
            "copy or download it again, or take its frames out with ffmpeg"
        ) from error
    with container:
        if not container.streams.video:
            raise ImageReadError(f"{path}: holds no video, only {_kinds(container)}")
        yield container


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def _upright(pixels: Pixels, degrees: int) -> Pixels:
    """Turned as its file says that it is to be shown, against the clock."""
    return np.ascontiguousarray(np.rot90(pixels, degrees // 90))


def has_pyav() -> bool:
    """Whether videos can be read and written."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


class VideoWriter:
    """An mp4 file that grows frame by frame; made by `write_video`."""

    def __init__(self, path: Path, rate: float) -> None:
        import av

        codec = next(name for name in _CODECS if name in av.codecs_available)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._container.add_stream(codec, Fraction(rate).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._size: tuple[int, int] | None = None
        self.frames = 0

    def add(self, image: Image.Image) -> None:
        """One frame more; one of another size than the first is scaled to fit into it, on black."""
        import av

        if self._size is None:  # H.264 knows even sides only
            self._size = image.width + image.width % 2, image.height + image.height % 2
            self._stream.width, self._stream.height = self._size
        if image.size != self._size:
            image = _onto(image, self._size)
        frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGB")), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Write what is still held back."""
        if self.frames:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


def _onto(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image on black of a size: at its corner if it lacks a line alone, else scaled to fit."""
    canvas = Image.new("RGB", size)
    if not (0 <= size[0] - image.width <= 1 and 0 <= size[1] - image.height <= 1):
        scale = min(size[0] / image.width, size[1] / image.height)
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    else:
        canvas.paste(image, (0, 0))
    return canvas


@contextmanager
def write_video(path: Path, rate: float = FRAMES_PER_SECOND) -> Iterator[VideoWriter]:
    """Yield a writer; `path` appears, whole, when the block ends, also if it is interrupted.

    A video of the frames so far is a whole file, so what is done is kept whatever ends the block.

    Raises:
        ValueError: PyAV is missing.
    """
    if not has_pyav():
        raise ValueError(f"{path}: writing a video needs PyAV{_NEEDS}")
    failure: BaseException | None = None
    with atomic_path(path) as temporary:
        writer = VideoWriter(temporary, rate)
        try:
            yield writer
        except BaseException as error:
            if not writer.frames:
                raise
            failure = error
        finally:
            writer.close()
    if failure is not None:
        raise failure


def _need_av(path: Path) -> None:
    if not has_pyav():
        raise ImageReadError(f"{path}: reading a video needs PyAV{_NEEDS}")
