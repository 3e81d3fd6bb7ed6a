"""How well objects were followed: HOTA, IDF1 and MOTA over mask IoU, computed by TrackEval.

TrackEval is by the authors of HOTA, takes overlaps of masks as they are, and had a release in 2026;
motmetrics had its last in 2022 and has no HOTA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffinst.results.crops import CompressedRLE, rle_iou

Frames: TypeAlias = Sequence[Sequence["TrackedMask"]]
SAME = 0.5
"""Mask IoU from which on IDF1 and MOTA count two as one; HOTA is the mean over 0.05 to 0.95."""


@dataclass(frozen=True)
class TrackedMask:
    """An object on a frame.

    Attributes:
        id: Which one it is.
        mask: COCO's run lengths.
        ignore: Of the truth: neither looked for nor wrong where it is found.
    """

    id: int
    mask: CompressedRLE
    ignore: bool = False


@dataclass(frozen=True)
class TrackingScores:
    """Higher is better, 1 is perfect; MOTA falls below 0 where more is wrong than right.

    Attributes:
        hota: Detection and identity alike, its two parts below.
        deta: How well objects were found.
        assa: How well they kept their identity.
        idf1: F1 of detections under the best assignment of ids to objects.
        mota: 1 minus missed, wrong and switched by the number of objects.
        switches: Times an object's id changed.
        false: Found where nothing is.
        missed: Not found.
    """

    hota: float
    deta: float
    assa: float
    idf1: float
    mota: float
    switches: int
    false: int
    missed: int


def track_scores(truth: Frames, found: Frames) -> TrackingScores:
    """Compare tracks of one video, of one class.

    Args:
        truth: Objects by frame.
        found: As many frames.

    Raises:
        ValueError: Other numbers of frames, an id twice on a frame, or TrackEval is missing.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise ValueError(
            "scores of tracks need TrackEval; run `pip install 'diffinst[tracking]'`"
        ) from error
    if len(truth) != len(found):
        raise ValueError(f"{len(found)} frames were tracked, the truth has {len(truth)}")
    data = _compared(truth, found)
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": SAME}
    hota = HOTA().eval_sequence(data)
    identity, clear = (kind(quiet).eval_sequence(data) for kind in (Identity, CLEAR))
    wrong = sum(map(len, found))
    if not any(map(len, truth)):  # TrackEval says 0 where nothing was to be found, and nothing was
        perfect = float(not wrong)
        return TrackingScores(perfect, perfect, perfect, perfect, perfect, 0, wrong, 0)
    return TrackingScores(
        hota=float(hota["HOTA"].mean()),
        deta=float(hota["DetA"].mean()),
        assa=float(hota["AssA"].mean()),
        idf1=float(identity["IDF1"]),
        mota=float(clear["MOTA"]),
        switches=int(clear["IDSW"]),
        false=int(clear["CLR_FP"]),
        missed=int(clear["CLR_FN"]),
    )


def _compared(truth: Frames, found: Frames) -> dict[str, object]:
    """What TrackEval takes of a sequence: ids from 0 on, and the overlaps frame by frame."""
    numbers: tuple[dict[int, int], dict[int, int]] = ({}, {})
    rows: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    overlaps = []
    for index, (objects, tracks) in enumerate(zip(truth, found, strict=True)):
        for what, given in (("truth", objects), ("tracks", tracks)):
            if len({one.id for one in given}) != len(given):
                raise ValueError(f"frame {index} of the {what} has an id twice")
        real, masks = [one for one in objects if not one.ignore], [one.mask for one in tracks]
        overlap = rle_iou([one.mask for one in real], masks)
        ignored = rle_iou(masks, [one.mask for one in objects if one.ignore], inside=True)
        free = ignored.max(1, initial=0.0) < SAME
        kept = np.flatnonzero(free | (overlap.max(0, initial=0.0) >= SAME)).tolist()
        overlaps.append(overlap[:, kept])
        for known, row, some in zip(numbers, rows, (real, [tracks[k] for k in kept]), strict=True):
            row.append(np.array([known.setdefault(one.id, len(known)) for one in some], np.int64))
    return {
        "gt_ids": rows[0],
        "tracker_ids": rows[1],
        "similarity_scores": overlaps,
        "num_gt_dets": sum(map(len, rows[0])),
        "num_tracker_dets": sum(map(len, rows[1])),
        "num_gt_ids": len(numbers[0]),
        "num_tracker_ids": len(numbers[1]),
        "num_timesteps": len(truth),
    }


def frames_of_coco(
    entries: Iterable[Mapping[str, object]], image_ids: Sequence[int]
) -> list[list[TrackedMask]]:
    """Annotations or results with `track_id`, frame by frame.

    Args:
        entries: With `image_id`, `track_id` and run lengths as `segmentation`.
        image_ids: Of the frames, in order.

    Raises:
        ValueError: An entry without track_id or without run lengths, or of no such frame.
    """
    frames: dict[int, list[TrackedMask]] = {number: [] for number in image_ids}
    for entry in entries:
        number, track = entry.get("image_id"), entry.get("track_id")
        mask = entry.get("segmentation")
        if not isinstance(number, int) or number not in frames:
            raise ValueError(f"an entry's image_id is {number}; there is no such frame")
        if not isinstance(track, int):
            raise ValueError(
                f"an entry of image {number} has no track_id; `diffinst predict --track` writes it"
            )
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            raise ValueError(
                f"an entry of image {number} has no compressed run lengths as segmentation"
            )
        rle = CompressedRLE(size=list(mask["size"]), counts=mask["counts"])
        frames[number].append(TrackedMask(track, rle, bool(entry.get("iscrowd", 0))))
    return list(frames.values())
