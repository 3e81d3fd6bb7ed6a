"""Does a tracked video come out complete, in every form, also where it is ended early?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.inference import track_folder as module
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.track_folder import Tracked, track_folder
from diffinst.io.images import ImageReadError
from diffinst.io.lock import alone_in
from diffinst.io.video import frames_of
from diffinst.results.render.marks import id_colors

FRAMES = 3


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same noise, a pixel further in each frame."""
    folder = tmp_path_factory.mktemp("movie")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for k in range(FRAMES):
        wide = Image.fromarray(pixels).resize((36, 24), Image.Resampling.NEAREST)
        wide.crop((k, 0, k + 32, 24)).save(folder / f"{k}.png")
    return folder


def tracked(model: DiffusionInst, source: list[Path], out: Path, **more: object) -> Tracked:
    return track_folder(model, source, out, proposals=8, threshold=0, **more)  # type: ignore[arg-type]


def test_every_form_tells_of_the_same_objects(
    tiny: DiffusionInst, movie: Path, tmp_path: Path
) -> None:
    done = tracked(tiny, [movie], tmp_path, layouts=("coco-video", "ctc"))
    assert (done.frames, done.notes) == (FRAMES, ()) and done.objects > 0
    results = json.loads((tmp_path / "results.json").read_text())
    index = json.loads((tmp_path / "index.json").read_text())
    assert [i["file_name"] for i in index["images"]] == [str(movie / f"{k}.png") for k in range(3)]
    seen = {(r["image_id"], r["track_id"]) for r in results}
    lines = [line.split(",") for line in (tmp_path / "tracks.txt").read_text().splitlines()]
    assert {(int(line[0]), int(line[1])) for line in lines} == seen
    assert len({number for _, number in seen}) == done.objects
    videos = json.loads((tmp_path / "video_results.json").read_text())
    assert {
        (frame + 1, video["id"])
        for video in videos
        for frame, mask in enumerate(video["segmentations"])
        if mask is not None
    } == seen
    cells = tmp_path / "01_RES"
    assert sorted(p.name for p in cells.iterdir()) == [
        *(f"mask{k:03d}.tif" for k in range(FRAMES)),
        "res_track.txt",
    ]
    said = [list(map(int, t.split())) for t in (cells / "res_track.txt").read_text().splitlines()]
    for k in range(FRAMES):
        labels = set(np.unique(np.asarray(Image.open(cells / f"mask{k:03d}.tif"))).tolist()) - {0}
        assert labels == {label for label, first, last, _ in said if first <= k <= last}


def test_the_overlay_is_a_video_with_a_frame_for_each(
    tiny: DiffusionInst, movie: Path, tmp_path: Path
) -> None:
    done = tracked(tiny, [movie], tmp_path / "a")
    assert done.overlay == tmp_path / "a" / "overlay.mp4"
    assert len(list(frames_of(done.overlay, Reading(), print)[0])) == FRAMES
    again = tracked(tiny, [done.overlay], tmp_path / "b")  # a video is read as well
    assert again.frames == FRAMES


def test_without_pyav_overlays_are_images(
    tiny: DiffusionInst, movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_pyav", lambda: False)
    done = tracked(tiny, [movie], tmp_path)
    assert done.overlay == tmp_path / "overlays"
    assert sorted(p.name for p in done.overlay.iterdir()) == [f"{k:06d}.png" for k in range(3)]
    drawn = np.asarray(Image.open(done.overlay / "000000.png").convert("RGB"))
    (first, *_) = tiny.track(movie, proposals=8, threshold=0)
    assert np.array_equal(drawn, np.asarray(first.result.plot(scores=False)))
    assert first.result.ids is not None and id_colors(first.result.ids)


def test_what_is_done_stays_when_the_run_ends_early(
    tiny: DiffusionInst, movie: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int | None) -> None:
        assert total == FRAMES
        if done == 2:
            raise SystemExit(143)  # what SIGTERM becomes

    with pytest.raises(SystemExit):
        tracked(tiny, [movie], tmp_path, progress=stop, layouts=("ctc",))
    assert len(list(frames_of(tmp_path / "overlay.mp4", Reading(), print)[0])) == 2
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["videos"] == [{"id": 1, "length": 2}] and len(index["images"]) == 2
    assert (tmp_path / "tracks.txt").read_text() and (tmp_path / "01_RES/res_track.txt").is_file()
    assert not [p for p in tmp_path.rglob("*") if ".tmp" in p.name or p.name == ".diffinst.lock"]


def test_frames_as_files_and_what_is_refused(
    tiny: DiffusionInst, movie: Path, tmp_path: Path
) -> None:
    files = sorted(movie.iterdir())
    assert tracked(tiny, files[:2], tmp_path / "files").frames == 2
    with pytest.raises(ImageReadError, match="is one of 2 that are to be tracked"):
        tracked(tiny, [movie, movie], tmp_path / "two")
    with pytest.raises(ValueError, match="layout mot; allowed are coco-video, ctc"):
        tracked(tiny, [movie], tmp_path / "layout", layouts=("mot",))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        tracked(tiny, [movie], tmp_path / "file")
    with alone_in(tmp_path / "held"), pytest.raises(BlockingIOError):
        tracked(tiny, [movie], tmp_path / "held")


def test_a_second_run_leaves_nothing_of_the_first(
    tiny: DiffusionInst, movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(movie.iterdir())
    with monkeypatch.context() as without:
        without.setattr(module, "has_pyav", lambda: False)
        tracked(tiny, files, tmp_path, layouts=("coco-video", "ctc"))
    others = [
        "notes.txt",
        "overlays/mine.png",
        "overlays/12.png",
        "01_RES/mask.tif",
        "a/tracks.txt",
    ]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    broken = tmp_path / "a" / "x.png"
    broken.write_text("")
    others.append("a/x.png")
    with pytest.raises(ImageReadError):
        tracked(tiny, [broken.parent], tmp_path)
    assert (tmp_path / "01_RES" / "mask002.tif").is_file()  # nothing came in its place
    tracked(tiny, files[:2], tmp_path, layouts=("ctc",))
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    ours = {"overlay.mp4", "tracks.txt", "results.json", "index.json", "01_RES/res_track.txt"}
    assert left == {*others, *ours, "01_RES/mask000.tif", "01_RES/mask001.tif"}


def test_what_is_tracked_is_not_removed(tiny: DiffusionInst, movie: Path, tmp_path: Path) -> None:
    frame = tmp_path / "overlays" / "000000.png"
    frame.parent.mkdir()
    frame.write_bytes((movie / "0.png").read_bytes())
    for source in ([frame.parent], [frame], [movie / "1.png", frame]):
        with pytest.raises(ValueError, match=r"000000\.png: is to be tracked, but results in "):
            tracked(tiny, source, tmp_path)
    assert frame.is_file()
    assert tracked(tiny, [frame.parent], frame.parent).frames == 1  # its own names are others


@pytest.mark.parametrize(("many", "name"), [(999, "mask000.tif"), (1000, "mask0000.tif")])
def test_label_maps_of_many_frames_have_four_digits(
    tiny: DiffusionInst, movie: Path, tmp_path: Path, many: int, name: str
) -> None:
    def stop(done: int, total: int | None) -> None:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        tracked(tiny, [movie / "0.png"] * many, tmp_path, layouts=("ctc",), progress=stop)
    assert [p.name for p in (tmp_path / "01_RES").glob("mask*")] == [name]


def test_label_maps_of_who_knows_how_many_frames_have_four_digits(
    tiny: DiffusionInst, movie: Path, tmp_path: Path
) -> None:
    first, *rest = (Image.open(path) for path in sorted(movie.iterdir()))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    tracked(tiny, [tmp_path / "stack.tif"], tmp_path / "out", layouts=("ctc",))
    masks = sorted(p.name for p in (tmp_path / "out" / "01_RES").glob("mask*"))
    assert masks == ["mask0000.tif", "mask0001.tif", "mask0002.tif"]
