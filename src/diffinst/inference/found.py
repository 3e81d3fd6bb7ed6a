"""What is known after a step: its own candidates, those of the steps before, and what is new."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from diffinst.config import Options
from diffinst.ops.boxes import iou
from diffinst.structures import Candidates, StageOutput


def confident(output: StageOutput, threshold: float) -> Bool[Tensor, "B N"]:
    """(B, N) proposals with a class probability above the threshold."""
    return output.logits.float().sigmoid().amax(-1) > threshold


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


def adds(before: Candidates, now: Candidates, *, score: float, overlap: float) -> Bool[Tensor, "B"]:
    """(B,) images where a step has found something that those before it had not.

    Args:
        before: Of the steps before.
        now: Of the step.
        score: Class probability from which on a candidate counts as something.
        overlap: IoU with a candidate of the same class that counts from which on it is known.
    """
    return torch.stack([_adds(before, now, i, score, overlap) for i in range(len(now.scores))]).to(
        now.scores.device
    )


def _adds(before: Candidates, now: Candidates, image: int, score: float, overlap: float) -> Tensor:
    sure, known = now.scores[image] >= score, before.scores[image] >= score
    boxes, others = now.boxes[image, sure].float(), before.boxes[image, known].float()
    near = iou(boxes[:, None], others[None]) >= overlap
    near &= now.labels[image, sure][:, None] == before.labels[image, known]
    return (~near.any(1)).any()


def stopped(
    options: Options,
    last_before: StageOutput | None,
    last: StageOutput,
    before: Candidates | None,
    now: Candidates,
) -> Bool[Tensor, "B"] | None:
    """(B,) images that need no further step; None: the options ask for all steps.

    Args:
        options: Whether a run stops early, and how; one of two reasons will do.
        last_before: What the step before made of its boxes; None: there was none.
        last: What this one made of them.
        before: Candidates of the steps before.
        now: Of this step.
    """
    if options.early_stop is None and not options.until_settled:
        return None
    stop = torch.zeros_like(now.scores[:, 0], dtype=torch.bool)
    if options.early_stop is not None and last_before is not None:
        stop |= settled(last_before, last, options.renewal_threshold, options.early_stop)
    if options.until_settled and before is None:  # an image without anything needs one step
        stop |= ~(now.scores >= options.new_score).any(1)
    elif options.until_settled and before is not None:
        stop |= ~adds(before, now, score=options.new_score, overlap=options.new_iou)
    return stop
