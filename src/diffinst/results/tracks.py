"""Tracked results in the forms of other tools: MOT text, COCO Video, Cell Tracking Challenge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.results.crops import CompressedRLE
from diffinst.results.instances import Instances

CTC_MOST = int(np.iinfo(np.uint16).max)


def mot_lines(index: int, found: Instances) -> list[str]:
    """Lines of a frame in MOTChallenge's form, best first.

    frame and id from 1, left, top, width and height of the smallest box around the mask, score,
    and three fields that it has for boxes in space.

    Args:
        index: Of the frame, 0 first.
        found: With `ids`.
    """
    columns = ids_of(found).tolist(), found.tight().boxes.tolist(), found.scores.tolist()
    return [
        f"{index + 1},{number},{x0:g},{y0:g},{x1 - x0:g},{y1 - y0:g},{score:.4f},-1,-1,-1"
        for number, (x0, y0, x1, y1), score in zip(*columns, strict=True)
    ]


class VideoTracks:
    """Objects of a video by id, in the form of COCO Video (YouTube-VIS) results."""

    def __init__(self) -> None:
        self._masks: dict[int, dict[int, CompressedRLE]] = {}
        self._scores: dict[int, list[float]] = {}
        self._labels: dict[int, list[int]] = {}

    def add(self, index: int, found: Instances) -> None:
        """The objects of a frame."""
        rows = zip(
            ids_of(found).tolist(),
            found.mask_crops.to_rle(),
            found.scores.tolist(),
            found.labels.tolist(),
            strict=True,
        )
        for number, mask, score, label in rows:
            self._masks.setdefault(number, {})[index] = mask
            self._scores.setdefault(number, []).append(score)
            self._labels.setdefault(number, []).append(label)

    def results(self, frames: int) -> list[dict[str, object]]:
        """One entry an object: its mean score, its most frequent class, a mask or null a frame.

        Args:
            frames: How many the video has.
        """
        return [
            {
                "video_id": 1,
                "id": number,
                "category_id": 1 + int(np.bincount(self._labels[number]).argmax()),
                "score": float(np.mean(self._scores[number])),
                "segmentations": [masks.get(index) for index in range(frames)],
            }
            for number, masks in sorted(self._masks.items())
        ]


@dataclass
class _Run:
    label: int
    first: int
    last: int
    parent: int


class CellTracks:
    """The Cell Tracking Challenge's form: label maps, and which label lives from when to when.

    There an object has its label in every frame from its first to its last, so one that was missed
    meanwhile goes on under a label of its own, whose parent is the one before.
    """

    def __init__(self) -> None:
        self._now: dict[int, _Run] = {}
        self._runs: list[_Run] = []

    def label_map(self, index: int, found: Instances) -> NDArray[np.uint16]:
        """The labels of a frame, the next one after that of the last call.

        Raises:
            ValueError: More labels than 16 bits can count.
        """
        numbers = ids_of(found).tolist()
        order = found.scores.argsort(descending=True, stable=True).tolist()
        labels = np.zeros(found.image_size, np.uint16)
        placed = list(found.mask_crops.placed())
        for i in reversed(order):
            (y, x), mask = placed[i]
            window = labels[y : y + mask.shape[0], x : x + mask.shape[1]]
            window[mask] = self._label(numbers[i], index)
        left = set(np.unique(labels).tolist())
        for run in [run for run in self._runs if run.last == index and run.label not in left]:
            run.last = index - 1  # all of it lies under others
        return labels

    def _label(self, number: int, index: int) -> int:
        run = self._now.get(number)
        if run is None or run.last < index - 1:
            label, parent = len(self._runs) + 1, 0
            if run is not None:
                parent = run.label if run.last >= run.first else run.parent
            if label > CTC_MOST:
                raise ValueError(
                    f"frame {index}: 16 bits count {CTC_MOST} tracks, here are more; raise the "
                    "threshold, or leave out the layout ctc"
                )
            run = self._now[number] = _Run(label, index, index, parent)
            self._runs.append(run)
        run.last = index
        return run.label

    def lines(self) -> list[str]:
        """`label first last parent` of each, frames from 0, parent 0: none."""
        return [
            f"{run.label} {run.first} {run.last} {run.parent}"
            for run in self._runs
            if run.last >= run.first
        ]


def joined(lines: Iterable[str]) -> str:
    """Lines as the text of a file."""
    return "".join(f"{line}\n" for line in lines)


def ids_of(found: Instances) -> torch.Tensor:
    """The ids of a tracked result.

    Raises:
        ValueError: It has none.
    """
    if found.ids is None:
        raise ValueError(f"{found} has no ids; it comes from `track` where it has")
    return found.ids
