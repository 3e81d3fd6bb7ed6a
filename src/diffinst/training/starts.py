"""The boxes that a training batch starts from: noised objects (Eq. 4), or what a run meets.

A run may meet boxes that the paper's training never shows: pure noise beside boxes that are nearly
right (a person's, or the last frame's), each at a time of its own. `train.starts` says how many
images get which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffinst.config import DiffusionConfig, StartsConfig
from diffinst.diffusion.near import StartDraw, boxes_near
from diffinst.diffusion.schedule import Schedule
from diffinst.diffusion.signal import Corruption, corrupt, from_signal, to_unit
from diffinst.models.decoder import Decoder
from diffinst.ops.boxes import class_nms
from diffinst.structures import Pyramid, Targets
from diffinst.training.matcher import FREE

FOUND_NMS_IOU = 0.6  # of two found boxes that overlap by more, one goes on
MOST_FOUND = 0.75  # of the proposals; the others start from noise


@dataclass(frozen=True)
class Starts:
    """What goes into the decoder.

    Attributes:
        boxes: (B, N, 4) xyxy pixels, b_t.
        times: (B,) one time an image, or (B, N) one a proposal.
        held: (B, N) int64, the object that a proposal belongs to whatever it predicts, or `FREE`;
            None: matching decides for all.
    """

    boxes: Tensor
    times: Tensor
    held: Tensor | None = None


def noised(
    targets: Sequence[Targets],
    draws: Sequence[Corruption],
    scale: Tensor,
    schedule: Schedule,
    config: DiffusionConfig,
) -> Starts:
    """b_t of a batch as in the paper (Eq. 4, first line); `start` of the draws does not count."""
    boxes = []
    for i, (target, draw) in enumerate(zip(targets, draws, strict=True)):
        _, x_t = corrupt(to_unit(target.boxes, scale[i], config), draw, schedule, config)
        boxes.append(from_signal(x_t, scale[i], config))
    times = scale.new_tensor([d.t for d in draws], dtype=torch.int64)
    return Starts(torch.stack(boxes), times)


def mixed(
    paper: Starts,
    targets: Sequence[Targets],
    draws: Sequence[Corruption],
    pyramid: Pyramid,
    scale: Tensor,
    decoder: Decoder,
    diffusion: DiffusionConfig,
    config: StartsConfig,
) -> Starts:
    """The same batch with other starts for the images whose draws say so.

    Args:
        paper: From `noised`.
        targets: Objects, N at most an image.
        draws: The randomness.
        pyramid: Of the images.
        scale: (B, 1, 4) (w, h, w, h) of the unpadded images.
        decoder: Takes the first step of `own` images, without gradient.
        diffusion: Signal, and T.
        config: What the draws were made for.
    """
    rows = [i for i, draw in enumerate(draws) if draw.start is not None]
    if not rows:
        return paper
    last_time = diffusion.timesteps - 1
    boxes, times = paper.boxes.clone(), paper.times[:, None].repeat(1, paper.boxes.shape[1])
    held = torch.full_like(times, FREE)
    for i in rows:
        boxes[i] = from_signal(draws[i].noise.to(scale), scale[i], diffusion)
        times[i] = last_time
    own = [i for i in rows if _start(draws[i]).kind == "own"]
    found_boxes = _found(own, boxes, times, draws, pyramid, decoder, config)
    for i, found in zip(own, found_boxes, strict=True):
        boxes[i, : len(found)], times[i, : len(found)] = found, 0
    for i in rows:
        start = _start(draws[i])
        if start.kind != "near":
            continue
        which = torch.nonzero(start.has_box(len(targets[i]))).flatten().to(boxes.device)
        near = boxes_near(targets[i].boxes, targets[i].masks, start)[which]
        reach = start.reach.to(boxes)[which]
        boxes[i, : len(which)] = near
        times[i, : len(which)] = (reach * config.near_time).round().long().clamp(max=last_time)
        held[i, : len(which)] = which
    return Starts(boxes, times, held)


def _start(draw: Corruption) -> StartDraw:
    assert draw.start is not None
    return draw.start


@torch.no_grad()
def _found(
    images: Sequence[int],
    boxes: Tensor,
    times: Tensor,
    draws: Sequence[Corruption],
    pyramid: Pyramid,
    decoder: Decoder,
    config: StartsConfig,
) -> list[Tensor]:
    """What a first step from noise finds on some images of a batch: (k, 4) boxes of each."""
    if not images:
        return []
    some = torch.tensor(images, device=boxes.device)
    part = replace(pyramid, table=pyramid.table.detach()[some])
    last = decoder(part, boxes[some], times[some])[-1]
    torch.clear_autocast_cache()  # casts made without gradient are no use for the step itself
    scores, labels = last.logits.float().sigmoid().max(-1)
    low, high = config.own_scores
    result = []
    for row, i in enumerate(images):
        threshold = low + (high - low) * _start(draws[i]).strength
        good = torch.nonzero((scores[row] > threshold) & last.boxes[row].isfinite().all(1))[:, 0]
        kept = class_nms(last.boxes[row, good], scores[row, good], labels[row, good], FOUND_NMS_IOU)
        most = int(MOST_FOUND * boxes.shape[1])
        result.append(last.boxes[row, good[kept[:most]]])
    return result
