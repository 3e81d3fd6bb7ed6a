"""What happens between two steps: which proposals go on, which start again, what is kept.

Shapes are fixed: kept proposals move to the front and `torch.where` fills up behind them, so any
batch works and one image never changes another.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffinst.ops.boxes import iou
from diffinst.structures import Candidates, StageOutput


def confident(output: StageOutput, threshold: float) -> Bool[Tensor, "B N"]:
    """(B, N) proposals with a class probability above the threshold."""
    return output.logits.float().sigmoid().amax(-1) > threshold


def kept_first(kept: Bool[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
    """The order that brings kept proposals to the front, each group in its own order.

    Returns:
        (B, N) int64 rows in that order, and (B, 1) int64 how many are kept.
    """
    position = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    count = kept.sum(1)[:, None]
    place = torch.where(kept, kept.cumsum(1) - 1, count + (~kept).cumsum(1) - 1)
    return torch.zeros_like(place).scatter(1, place, position), count


def renewed(
    moved: Float[Tensor, "B N 4"], fresh: Float[Tensor, "B N 4"], count: Tensor
) -> Float[Tensor, "B N 4"]:
    """Box renewal: the first `count` proposals of each image go on, fresh ones fill up in order.

    Args:
        moved: (B, N, 4) signal at the next time, kept proposals first.
        fresh: (B, N, 4) fresh starts; the first N - count are used.
        count: (B, 1) int64.
    """
    position = torch.arange(moved.shape[1], device=moved.device)
    row = (position - count).clamp(min=0)[..., None].expand_as(fresh)
    return torch.where((position < count)[..., None], moved, fresh.gather(1, row).to(moved))


def settled(
    before: StageOutput, now: StageOutput, threshold: float, overlap: float
) -> Bool[Tensor, "B"]:
    """(B,) images whose confident boxes all stood, in the same class, in the step before.

    Args:
        before: Last stage of the step before.
        now: Last stage of this step.
        threshold: From which score on a box is confident.
        overlap: IoU from which on it is the same box.
    """
    was, kept = confident(before, threshold), confident(now, threshold)
    near = iou(now.boxes[:, :, None], before.boxes[:, None]) >= overlap
    same = now.logits.argmax(-1)[:, :, None] == before.logits.argmax(-1)[:, None]
    found = (near & same & was[:, None]).any(2)
    return (found | ~kept).all(1) & kept.any(1)


def candidates_of(output: StageOutput, active: Bool[Tensor, "B"]) -> Candidates:
    """The N best (proposal, class) pairs of each image; a proposal may have several classes.

    Args:
        output: Of the last decoder stage.
        active: (B,) images that take part; the others get scores of -1.
    """
    count, classes = output.logits.shape[1:]
    scores, flat = output.logits.float().sigmoid().flatten(1).topk(count, dim=1, sorted=False)
    proposals = flat // classes
    rows = proposals[..., None]
    return Candidates(
        boxes=output.boxes.gather(1, rows.expand(-1, -1, 4)),
        scores=torch.where(active[:, None], scores, -1.0),
        labels=flat % classes,
        filters=output.filters.gather(1, rows.expand(-1, -1, output.filters.shape[-1])),
        proposals=proposals,
    )


def merged(
    before: Candidates | None,
    now: Candidates,
    active: Bool[Tensor, "B"],
    ensemble: Literal["all", "official", "last"],
    *,
    final: bool,
) -> Candidates:
    """What is known after a step, from what was known before it and what it found.

    Args:
        before: Of the steps before; None: there were none.
        now: Of this step.
        active: (B,) images that this step was for.
        ensemble: `all`: every step counts; `official`: all but the last of a run; `last`: each
            image's own last one.
        final: Whether this is the last step that a run can have.
    """
    if before is None:
        return now
    match ensemble:
        case "all":
            return Candidates.cat([before, now])
        case "official":
            return before if final else Candidates.cat([before, now])
        case "last":
            return Candidates.where(active, now, before)
