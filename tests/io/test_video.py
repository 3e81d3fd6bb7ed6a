"""Do videos, folders and stacks give their frames, and does a damaged one say where it ends?"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.io import video
from diffinst.io.images import ImageReadError
from diffinst.io.video import frame_files, frame_rate, frames_of, is_video, write_video

GREYS = (40, 120, 200, 250)


def movie(path: Path, size: tuple[int, int] = (64, 48), rate: float = 25) -> Path:
    """A video of grey frames."""
    with write_video(path, rate) as writer:
        for grey in GREYS:
            writer.add(Image.new("RGB", size, (grey, grey, grey)))
    return path


def greys(source: Path, reading: Reading | None = None) -> tuple[list[int], list[str]]:
    """Mean grey of each frame, and the notes."""
    notes: list[str] = []
    frames, _ = frames_of(source, reading or Reading(), notes.append)
    return [round(float(np.mean(f))) for f in frames if isinstance(f, np.ndarray)], notes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = movie(tmp_path / "a.mp4")
    found, notes = greys(path)
    assert np.allclose(found, GREYS, atol=3) and notes == []
    assert frame_rate(path) == 25 and frame_rate(tmp_path) == video.FRAMES_PER_SECOND
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sides_and_frames_of_another_size_fit_into_the_first(tmp_path: Path) -> None:
    with write_video(tmp_path / "a.mp4") as writer:
        writer.add(Image.new("RGB", (63, 47), "white"))
        writer.add(Image.new("RGB", (126, 47), "white"))  # half as high when it fits
    frames, _ = frames_of(tmp_path / "a.mp4", Reading(), print)
    first, second = (np.asarray(frame)[..., 0] > 128 for frame in frames)
    assert first.shape == (48, 64) and first[:46, :62].all()
    assert not second[:9].any() and second[15:33, 2:62].all() and not second[39:].any()


def test_an_interrupted_video_keeps_what_was_done(tmp_path: Path) -> None:
    def interrupted(path: Path, frames: int) -> None:
        with write_video(path) as writer:
            for _ in range(frames):
                writer.add(Image.new("RGB", (64, 48), "white"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a.mp4", 2)
    assert len(greys(tmp_path / "a.mp4")[0]) == 2
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "b.mp4", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_ends_in_mid_frame_gives_those_before_and_says_so(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    rng = np.random.default_rng(0)
    with write_video(whole) as writer:
        for _ in range(8):
            writer.add(Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)))
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    frames, notes = greys(tmp_path / "cut.mp4")
    assert 0 < len(frames) < 8
    assert len(notes) == 1 and f"cut.mp4: ends after {len(frames)} frames" in notes[0]


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_file_without_a_number_of_frames_that_ends_early_says_so(
    tmp_path: Path, suffix: str, sound: bool
) -> None:
    import av

    rng, whole = np.random.default_rng(0), tmp_path / f"whole.{suffix}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libvpx", 25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 64, 48
        voice = container.add_stream("libopus", 48000) if sound else None
        for _ in range(20):
            pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
        if voice is not None:  # lasts longer
            assert isinstance(voice, av.AudioStream)
            for k in range(60):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
                frame.sample_rate, frame.pts = 48000, 960 * k
                container.mux(voice.encode(frame))
            container.mux(voice.encode(None))
    found, notes = greys(whole)
    assert len(found) == 20 and notes == []
    content = whole.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    found, notes = greys(tmp_path / f"cut.{suffix}")
    assert 0 < len(found) < 20 and len(notes) == 1
    said = f"ends after {len(found)} frames ({len(found) / 25:g} of the 0.8 seconds that were ann"
    assert said in notes[0]


def test_videos_without_frames_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"no video" * 100)
    head = movie(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "head.mp4").write_bytes(head[: head.index(b"mdat") + 4])
    for name in ("empty.mp4", "text.mp4", "head.mp4"):
        with pytest.raises(ImageReadError, match=rf"{name}: (cannot be read as a video|has no)"):
            greys(tmp_path / name)
    with pytest.raises(ImageReadError, match="there is no such file"):
        greys(tmp_path / "none.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", 44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ImageReadError, match="holds no video, only audio"):
        greys(tmp_path / "a.mp4")


def test_a_folder_gives_its_frames_by_number(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame2.png", ".hidden.png", "notes.txt", "below/frame1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    frames, reading = frames_of(tmp_path, Reading(channel=1), print)
    assert [Path(str(f)).name for f in frames] == ["frame2.png", "frame10.png"]
    assert reading.channel == 1
    (tmp_path / "outer").mkdir()
    (tmp_path / "below").rename(tmp_path / "outer" / "inner")
    with pytest.raises(ImageReadError, match=r"outer: no frames in it; .*inner holds some"):
        frame_files(tmp_path / "outer")


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_pages_are_frames(tmp_path: Path, name: str) -> None:
    pages = [Image.new("L", (8, 6), grey) for grey in GREYS]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert greys(tmp_path / name) == (list(GREYS), [])
    with pytest.raises(ImageReadError, match="its pages are the frames; leave out page"):
        greys(tmp_path / name, Reading(page=1))


def test_a_single_image_is_one_frame_and_no_image_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 6), 9).save(tmp_path / "a.png")
    assert greys(tmp_path / "a.png") == ([9], [])
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(ImageReadError, match=r"a\.txt: is not an image"):
        greys(tmp_path / "a.txt")


def test_names_of_videos() -> None:
    assert is_video("a.MP4") and not is_video("a.tif")


def test_without_pyav_a_video_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = movie(tmp_path / "a.mp4")
    real: Callable[..., ModuleType] = builtins.__import__

    def without(name: str, *rest: object) -> ModuleType:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageReadError, match=r"a\.mp4: .*pip install 'diffinst\[video\]'"):
        frames_of(path, Reading(), print)
    with pytest.raises(ValueError, match="writing a video needs PyAV"), write_video(path):
        pass
