"""From prompts to one instance each: one decoder pass over all of them, then a choice.

Every prompt starts a few boxes. What its own boxes become are its answers; the best one by mask
quality and agreement with the prompt is taken, and no object is given to two prompts that do not
both mean it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import Options
from diffinst.diffusion.start import Start
from diffinst.inference.late_masks import LateInstances
from diffinst.inference.pipeline import Pipeline
from diffinst.inference.prompts import (
    CLICK_SIDES,
    NOTHING,
    TIME,
    Excluded,
    Prompt,
    box_agreement,
    starts_of,
)
from diffinst.inference.runner import Runner
from diffinst.inference.select import Detections, with_quality
from diffinst.ops.boxes import area, clip
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.structures import Encoded

Found: TypeAlias = Instances | LateInstances

COMPANY = 32
"""Boxes in a pass at least, the rest from noise: a box alone does worse (docs/diary.md)."""
AT_ONCE = 600  # boxes in a pass at most
QUALITY = 4.0  # weight of the mask's expected IoU among a prompt's own answers, as in `nano`
SAME = 0.5  # mask IoU from which on two answers are one object
MEANT = 0.5  # agreement from which on a prompt means an object, whoever else does
ALIKE = 0.8  # mask IoU from which on two answers to one prompt are one


@dataclass(frozen=True)
class Answers:
    """All answers to some prompts.

    Attributes:
        found: m instances, with the scores that `predict` would give.
        prompt: (m,) whose answer each one is.
        value: (m,) how good it is for that prompt.
        agreement: (n, m) of each prompt with each answer, 0 to 1.
    """

    found: Found
    prompt: NDArray[np.int64]
    value: NDArray[np.float64]
    agreement: NDArray[np.float64]


def answers(
    runner: Runner,
    encoded: Encoded,
    size: tuple[int, int],
    prompts: Sequence[Prompt],
    excluded: Excluded,
    options: Options,
) -> Answers:
    """What the boxes that the prompts start become.

    Args:
        runner: Predicts.
        encoded: One image.
        size: Its (height, width).
        prompts: What is meant.
        excluded: What is not.
        options: Seed of the company, mask threshold, scores.
    """
    diffusion, inside = runner.network.config.diffusion, encoded.sizes[0]
    zoom = inside[0] / size[0]
    sides = [side / zoom for side in runner.config.prompts.sides or CLICK_SIDES]
    largest = 0.999 * (diffusion.size_pixels or float("inf"))  # the rest is for rounding
    most = largest / max(zoom, inside[1] / size[1])
    starts = [starts_of(prompt, excluded, sides, most) for prompt in prompts]
    owner = np.repeat(np.arange(len(prompts)), [len(rows) for rows in starts])
    parts = [
        _pass(runner, encoded, size, boxes, options) for boxes in torch.cat(starts).split(AT_ONCE)
    ]
    value = torch.cat([v for _, v in parts])
    kept = Detections.cat([part for part, _ in parts])
    found = LateInstances(kept, encoded, size, runner.network, options.mask_threshold)
    agreement = _agreement(prompts, excluded, found)
    own = agreement[owner, np.arange(len(owner))]
    return Answers(found, owner, value.double().numpy() * own, agreement)


def _pass(
    runner: Runner, encoded: Encoded, size: tuple[int, int], boxes: Tensor, options: Options
) -> tuple[Detections, Tensor]:
    """What boxes become in one step, one detection each, and the quality of each."""
    timesteps = runner.network.config.diffusion.timesteps
    count = len(boxes)
    one = options.model_copy(
        update={"kind": "search", "steps": 1, "times": None, "proposals": max(count, COMPANY)}
    )
    pipeline: Pipeline = runner.pipeline(one)
    noise = runner.noise([one.seed], one)
    start = Start(boxes, int(TIME * timesteps), noised=False)
    (step,) = pipeline.run(encoded, noise, [start], [size])
    last, head = step.stages[-1], runner.network.mask_head
    logits, filters = last.logits[0, :count].float(), last.filters[0, :count]
    place = last.boxes[0, :count].float()
    real = place.isfinite().all(1)
    place = torch.where(real[:, None], place, 0.0)
    first = torch.zeros(count, dtype=torch.int64, device=place.device)
    threshold = one.mask_threshold
    quality = head.expected_iou(
        encoded.mask_features, filters, place, first, encoded.sizes, threshold
    )
    probs, labels = logits.sigmoid().max(1)
    inside = encoded.sizes[0]
    ratio = place.new_tensor([size[1] / inside[1], size[0] / inside[0]]).repeat(2)
    kept = Detections(
        boxes=place,
        output_boxes=clip(place * ratio, size),
        scores=torch.where(real, with_quality(probs, quality, one.mask_quality), 0.0),
        labels=labels,
        filters=filters,
        proposals=torch.arange(count, device=place.device),
    )
    return kept, torch.where(real, with_quality(probs, quality, QUALITY), 0.0).cpu()


def _agreement(prompts: Sequence[Prompt], excluded: Excluded, found: Found) -> NDArray[np.float64]:
    """(n, m) how well each answer agrees with each prompt, without what is excluded."""
    boxes = found.boxes
    clicked = len(excluded.points) or any(prompt.box is None for prompt in prompts)
    masks = found[range(len(found) if clicked else 0)].mask_crops  # drawn boxes look at boxes alone
    *on, on_excluded = covered([*(prompt.points for prompt in prompts), excluded.points], masks)
    agreement = np.stack(
        [
            np.maximum(fractions, NOTHING)
            if prompt.box is None
            else box_agreement(prompt, boxes).double().numpy()
            for prompt, fractions in zip(prompts, on, strict=True)
        ]
    )
    excluding = [_within(boxes, box).double().numpy() for box in excluded.boxes]
    if len(excluded.points):
        excluding.append((on_excluded > 0).astype(np.float64))
    for fraction in excluding:
        agreement *= fraction * NOTHING + (1 - fraction)  # NOTHING itself where it is 1
    return agreement


def _within(boxes: Tensor, box: Tensor) -> Tensor:
    """(m,) the fraction of each box's area inside one box."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    return (high - low).clamp(min=0).prod(1) / area(boxes).clamp(min=1e-6)


def covered(groups: Sequence[Tensor], masks: CroppedMasks) -> NDArray[np.float64]:
    """(n, m) the fraction of each of n groups of points (p, 2), x, y pixels, on each mask.

    A group without points is on none.
    """
    sizes = np.array([len(points) for points in groups], np.int64)
    owner = np.repeat(np.arange(len(groups)), sizes)
    x, y = torch.cat([torch.zeros(0, 2), *groups]).floor().long().numpy().T
    height, width = masks.image_size
    x, y = np.minimum(x, width - 1), np.minimum(y, height - 1)  # a click on the far edge
    counts = np.zeros((len(masks), len(groups)), np.int64)
    for count, ((y0, x0), patch) in zip(counts, masks.placed(), strict=True):
        inside = (x >= x0) & (y >= y0) & (x < x0 + patch.shape[1]) & (y < y0 + patch.shape[0])
        on = patch[y[inside] - y0, x[inside] - x0]
        count[:] = np.bincount(owner[inside][on], minlength=len(groups))
    fractions: NDArray[np.float64] = counts.T / np.maximum(sizes, 1)[:, None]
    return fractions


def chosen(given: Answers) -> Instances:
    """One instance per prompt, in their order.

    A prompt that finds its object taken by another one that fits better gets its next answer. Where
    there is none of its own, none that agrees with the prompt at all, or only an empty mask, it
    gets its best one with a score of 0.
    """
    count = len(given.agreement)
    ranked = [_ranked(given, prompt) for prompt in range(count)]
    order = sorted(range(count), key=lambda i: -given.value[ranked[i][0]])
    overlaps = _Overlaps(given.found)
    overlaps.know([own[0] for own in ranked])
    # Who needs further answers shows only here; masks are made quicker together than one by one.
    _, losers = _dealt(given, overlaps, order, [own[:1] for own in ranked])
    overlaps.know([answer for prompt in losers for answer in ranked[prompt]])
    taken, lost = _dealt(given, overlaps, order, ranked)
    result = given.found[[taken.get(prompt, ranked[prompt][0]) for prompt in range(count)]]
    scores = result.scores.clone()
    scores[lost] = 0.0
    scores[result.mask_crops.area() == 0] = 0.0
    return replace(result, scores=scores)


def _dealt(
    given: Answers, overlaps: _Overlaps, order: Sequence[int], ranked: Sequence[Sequence[int]]
) -> tuple[dict[int, int], list[int]]:
    """Which answer each prompt takes, and those that find none free; the first in order first."""
    taken: dict[int, int] = {}
    lost: list[int] = []
    for prompt in order:
        own = ranked[prompt]
        answer = next((a for a in own if _free(given, overlaps, a, prompt, taken)), None)
        if answer is None or given.agreement[prompt, answer] <= NOTHING:
            lost.append(prompt)
        else:
            taken[prompt] = answer
    return taken, lost


def _free(
    given: Answers, overlaps: _Overlaps, answer: int, prompt: int, taken: dict[int, int]
) -> bool:
    """Whether no other prompt has the object, but one that means it as this one does."""
    ious = overlaps.ious(answer, list(taken.values()))
    return not any(
        iou >= SAME and not _both_meant(given, answer, prompt, other)
        for other, iou in zip(taken, ious, strict=True)
    )


def candidates(given: Answers, most: int) -> list[Instances]:
    """The answers to each prompt that differ from each other, best first, `most` at most."""
    results, overlaps = [], _Overlaps(given.found)
    overlaps.know(range(len(given.found)))
    for prompt in range(len(given.agreement)):
        kept: list[int] = []
        for answer in _ranked(given, prompt):
            if all(iou < ALIKE for iou in overlaps.ious(answer, kept)):
                kept.append(answer)
        results.append(given.found[kept[:most]])
    return results


def _ranked(given: Answers, prompt: int) -> list[int]:
    own = np.flatnonzero(given.prompt == prompt)
    return [int(a) for a in own[np.argsort(-given.value[own], kind="stable")]]


def _both_meant(given: Answers, answer: int, i: int, j: int) -> bool:
    """Whether both prompts mean what was found."""
    return bool(given.agreement[i, answer] >= MEANT and given.agreement[j, answer] >= MEANT)


class _Overlaps:
    """Mask IoU of pairs of instances, computed where it is asked for."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.patches: dict[int, NDArray[np.bool_]] = {}
        self.windows = np.zeros((len(found), 4), np.int64)  # y0, x0, y1, x1
        self.areas = np.zeros(len(found), np.int64)

    def know(self, which: Sequence[int]) -> None:
        """Take the masks of some, together."""
        new = sorted(set(which) - self.patches.keys())
        if not new:
            return
        masks = self.found[new].mask_crops
        for i, ((y, x), patch) in zip(new, masks.placed(), strict=True):
            self.patches[i] = patch
            self.windows[i] = y, x, y + patch.shape[0], x + patch.shape[1]
            self.areas[i] = np.count_nonzero(patch)

    def ious(self, one: int, others: Sequence[int]) -> NDArray[np.float64]:
        """(k,) of one with some others; 0 where both are empty."""
        self.know([one, *others])
        values = np.zeros(len(others))
        mine, theirs = self.windows[one], self.windows[list(others)].reshape(-1, 4)
        low, high = np.maximum(mine[:2], theirs[:, :2]), np.minimum(mine[2:], theirs[:, 2:])
        for k in np.flatnonzero((high > low).all(1)).tolist():
            here, there = (
                self.patches[i][tuple(map(slice, low[k] - start[:2], high[k] - start[:2]))]
                for i, start in ((one, mine), (others[k], theirs[k]))
            )
            both = np.count_nonzero(here & there)
            values[k] = both / max(1, self.areas[one] + self.areas[others[k]] - both)
        return values
