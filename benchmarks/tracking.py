"""Tracking from the last frame's boxes against prediction frame by frame with ByteTrack.

    python benchmarks/tracking.py --data nuclei_video --images nuclei --out results.json
    python benchmarks/tracking.py strip --data nuclei_video --out track.png

The first `pip install trackers trackeval`. Ours: one step of 100 fresh proposals beside the carried
boxes, the first frame four steps of 300. Baseline: four steps of 300 on every frame, all candidates
from a score of 0.1 on given to ByteTrack (`trackers`, its own defaults, which were the best of
eight settings tried on sim_dsb_1). Both get the same encoded frame in turns; seconds are CPU
seconds of one thread, encoding included.

sim_dsb sequences are real images with simulated motion, made from images that the shipped weights
were chosen on (val); so are the windows, which move over large images of the same val split. Fields
of ours were chosen on the first frames of sim_dsb_1 alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import supervision
import torch
from cyclopts import App
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.evaluation.tracking import TrackedMask, frames_of_coco, track_scores
from diffinst.inference.image import EncodedImage
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.track import Tracker
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import read_image
from diffinst.kernels.machine import machine
from diffinst.results.crops import CompressedRLE, CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.sheet import contact_sheet
from diffinst.results.tracks import ids_of

app = App()
EXACT = ("sim_dsb_1", "sim_dsb_2", "sim_dsb_3")
SILVER = ("mitocheck_h2b", "celltk_mz_a")
WINDOWS = ("c395870ad9f5a3ae.png", "cc88627344305b9a.png")
WINDOW, PACE = (256, 320), 9.0  # height and width; pixels a frame
SLIVER = 30  # pixels; less of an object at the border is ignored
LOW = 0.1  # score from which on ByteTrack sees a candidate
GAP = 3  # black frames
SAME = 0.5


@dataclass(frozen=True)
class Movie:
    """Frames with their objects."""

    name: str
    frames: list[NDArray[np.uint8]]
    truth: list[list[TrackedMask]]


def annotated(folder: Path, frames: int | None) -> Movie:
    """A sequence of a folder with frames/ and tracks.json."""
    content = json.loads((folder / "tracks.json").read_text())
    images = sorted(content["images"], key=lambda image: image["frame_index"])
    truth = frames_of_coco(content["annotations"], [image["id"] for image in images])
    pixels = [read_image(folder / image["file_name"]) for image in images[:frames]]
    return Movie(folder.name, pixels, truth[:frames])


def corners(size: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Where a window's upper left corner lies: there and back on a slanted loop, PACE a frame."""
    room = np.array(size) - WINDOW
    way = np.arange(count) * PACE
    places = [
        np.abs((way * part + offset) % (2 * r) - r)
        for part, offset, r in zip((0.6, 0.8), (0.3 * room[0], 0.6 * room[1]), room, strict=True)
    ]
    return [(int(y), int(x)) for y, x in zip(*places, strict=True)]


def moved_window(images: Path, name: str, count: int) -> Movie:
    """A window that moves over an image; objects keep their number."""
    (record,) = [one for one in load_split(images, "val").records if one.path.name == name]
    image = read_image(record.path)
    masks = [
        (i, rasterize(a.segmentation, record.height, record.width))
        for i, a in enumerate(record.annotations, start=1)
        if not a.crowd
    ]
    frames, truth = [], []
    for y, x in corners((record.height, record.width), count):
        part = np.s_[y : y + WINDOW[0], x : x + WINDOW[1]]
        frames.append(np.ascontiguousarray(image[part]))
        seen = [(i, mask[part]) for i, mask in masks if mask[part].any()]
        crops = CroppedMasks.from_dense(torch.from_numpy(np.stack([m for _, m in seen])))
        rles = crops.to_rle()
        truth.append(
            [
                TrackedMask(i, rle, ignore=bool(mask.sum() < SLIVER))
                for (i, mask), rle in zip(seen, rles, strict=True)
            ]
        )
    return Movie(f"window over {Path(name).stem}", frames, truth)


def masks_of(found: Instances) -> list[TrackedMask]:
    """As the scores take them."""
    rles = found.mask_crops.to_rle()
    return [TrackedMask(i, rle) for i, rle in zip(ids_of(found).tolist(), rles, strict=True)]


class ByteTrack:
    """The baseline's tracker on the results of single frames."""

    def __init__(self) -> None:
        from trackers import ByteTrackTracker

        self.tracker = ByteTrackTracker()

    def take(self, found: Instances) -> Instances:
        """The tracked ones, with ids."""
        rows = np.arange(len(found))
        given = supervision.Detections(
            xyxy=found.tight().boxes.numpy(),
            confidence=found.scores.numpy(),
            class_id=found.labels.numpy(),
            data={"row": rows},
        )
        tracked = self.tracker.update(given)
        numbers = np.zeros(0, np.int64) if tracked.tracker_id is None else tracked.tracker_id
        sure = numbers >= 0
        kept = np.asarray(tracked.data["row"])[sure].tolist() if sure.any() else []
        return replace(found[kept], ids=torch.from_numpy(numbers[sure].astype(np.int64) + 1))


@dataclass
class Side:
    """What one side made of a sequence."""

    tracks: list[list[TrackedMask]]
    seconds: list[float]


def both(
    model: DiffusionInst, frames: Sequence[NDArray[np.uint8]]
) -> tuple[Side, Side, list[float]]:
    """Ours, the baseline, and the seconds that encoding takes of each frame."""
    ours, baseline, encoding = Side([], []), Side([], []), []
    tracker, byte = Tracker(model.config), ByteTrack()
    for frame in frames:
        begin = time.process_time()
        image: EncodedImage = model.encode(frame)
        encoding.append(time.process_time() - begin)
        begin = time.process_time()
        found, _ = tracker.take(image)
        ours.seconds.append(time.process_time() - begin)
        begin = time.process_time()
        other = byte.take(image.predict(kind="search", steps=4, proposals=300, threshold=LOW))
        baseline.seconds.append(time.process_time() - begin)
        ours.tracks.append(masks_of(found))
        baseline.tracks.append(masks_of(other))
    return ours, baseline, encoding


def matches(truth: Sequence[TrackedMask], tracks: Sequence[TrackedMask]) -> dict[int, int]:
    """Object: track on it, where their masks overlap by half."""
    objects = [one for one in truth if not one.ignore]
    if not objects or not tracks:
        return {}
    masks: tuple[list[CompressedRLE], list[CompressedRLE]] = (
        [one.mask for one in objects],
        [one.mask for one in tracks],
    )
    overlap = np.asarray(coco_mask.iou(*masks, [0] * len(tracks)))
    best = overlap.argmax(1)
    return {
        one.id: tracks[int(j)].id
        for i, (one, j) in enumerate(zip(objects, best, strict=True))
        if overlap[i, j] >= SAME
    }


def delays(
    truth: Sequence[Sequence[TrackedMask]], tracks: Sequence[Sequence[TrackedMask]]
) -> list[int | None]:
    """Frames until an object that appears after the first frame is first tracked; None: never.

    One that comes in over the border appears when half of its largest area is seen.
    """
    areas = [{one.id: int(coco_mask.area(one.mask)) for one in row} for row in truth]
    largest: dict[int, int] = {}
    for row in areas:
        for number, area in row.items():
            largest[number] = max(area, largest.get(number, 0))
    first: dict[int, int] = {}
    found: dict[int, int] = {}
    for index, (objects, some) in enumerate(zip(truth, tracks, strict=True)):
        for one in objects:
            if not one.ignore and 2 * areas[index][one.id] >= largest[one.id]:
                first.setdefault(one.id, index)
        for number in matches(objects, some):
            found.setdefault(number, index)
    return [
        max(0, found[number] - begin) if number in found else None
        for number, begin in first.items()
        if begin
    ]


def survived(before: dict[int, int], after: dict[int, int]) -> tuple[int, int]:
    """Objects tracked before and after a gap: how many have their id still, and how many in all."""
    there = before.keys() & after.keys()
    return sum(before[number] == after[number] for number in there), len(there)


def summary(sequence: Movie, side: Side, encoding: list[float]) -> dict[str, object]:
    """Scores and seconds."""
    late = delays(sequence.truth, side.tracks)
    return {
        **asdict(track_scores(sequence.truth, side.tracks)),
        "new_objects": len(late),
        "new_within_two_frames": sum(delay is not None and delay <= 1 for delay in late),
        "new_never": sum(delay is None for delay in late),
        "seconds_a_frame": float(np.mean(side.seconds) + np.mean(encoding)),
        "seconds_without_encoding": float(np.mean(side.seconds)),
    }


@app.default
def tracking(
    *,
    data: Path,
    images: Path,
    model: str = "nano-nuclei",
    out: Path | None = None,
    frames: int | None = None,
    window_frames: int = 30,
    names: tuple[str, ...] = (*EXACT, *WINDOWS),
    gap: str = "sim_dsb_3",
) -> None:
    """Both sides on every sequence, side by side.

    Args:
        data: The folder of nuclei_video.
        images: COCO-format folder; windows move over images of its val split.
        model: Name, folder or hub id.
        out: JSON file, written after each sequence; those that it has already stay as they are.
        frames: First N of each sequence only.
        window_frames: Of each moving window.
        names: Sequences, and images for windows.
        gap: Sequence of which three frames are made black; empty: omitted.
    """
    torch.set_num_threads(1)
    loaded = DiffusionInst.from_pretrained(model)
    rows: dict[str, object] = {}
    content: dict[str, object] = {
        "model": model,
        "machine": machine("cpu"),
        "low": LOW,
        "frames": frames,
        "sequences": rows,
    }
    before = json.loads(out.read_text()) if out is not None and out.is_file() else {}
    rows |= before.get("sequences", {})
    for name in names:
        if name in rows or f"window over {Path(name).stem}" in rows:
            continue
        windows = name.endswith(".png")
        sequence = (
            moved_window(images, name, window_frames) if windows else annotated(data / name, frames)
        )
        ours, baseline, encoding = both(loaded, sequence.frames)
        rows[sequence.name] = {
            "frames": len(sequence.frames),
            "objects": len({one.id for row in sequence.truth for one in row}),
            "seconds_of_encoding": float(np.mean(encoding)),
            "truth": "silver" if name in SILVER else "exact",
            "ours": summary(sequence, ours, encoding),
            "baseline": summary(sequence, baseline, encoding),
        }
        print(json.dumps({sequence.name: rows[sequence.name]}, indent=1), flush=True)
        if out is not None:
            write_json(out, content)
    if "gap" in before:
        content["gap"] = before["gap"]
    elif gap:
        sequence = annotated(data / gap, 4 + GAP + 1)
        black = [np.zeros_like(frame) for frame in sequence.frames[4:-1]]
        ours, baseline, _ = both(loaded, [*sequence.frames[:4], *black, sequence.frames[-1]])
        content["gap"] = {
            "sequence": gap,
            "black_frames": GAP,
            **{
                side: dict(
                    zip(
                        ("kept", "of"),
                        survived(
                            matches(sequence.truth[3], run.tracks[3]),
                            matches(sequence.truth[-1], run.tracks[-1]),
                        ),
                        strict=True,
                    )
                )
                for side, run in (("ours", ours), ("baseline", baseline))
            },
        }
        print(content["gap"])
    if out is not None:
        write_json(out, content)


@app.command
def strip(
    *,
    data: Path,
    out: Path,
    model: str = "nano-nuclei",
    name: str = "sim_dsb_3",
    every: int = 2,
    tiles: int = 4,
) -> None:
    """A row of frames of a tracked sequence, objects in the colours of their ids.

    Args:
        data: The folder of nuclei_video.
        out: A .png file.
        model: Name, folder or hub id.
        name: Which sequence.
        every: Frames from tile to tile.
        tiles: How many.
    """
    torch.set_num_threads(1)
    loaded = DiffusionInst.from_pretrained(model)
    files = sorted((data / name / "frames").iterdir())[: every * (tiles - 1) + 1]
    shown = [
        (frame.result.plot(), f"frame {frame.index}: {len(frame.result)} objects")
        for frame in loaded.track(files)
        if frame.index % every == 0
    ]
    sheet = contact_sheet(shown, columns=tiles, tile_width=shown[0][0].width)
    with atomic_path(out) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    app()
