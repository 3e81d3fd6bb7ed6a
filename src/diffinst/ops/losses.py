"""The loss terms, unreduced; weighting and normalising happen in `training/criterion.py`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

DICE_EPS = 1e-5


def sigmoid_focal(
    logits: Float[Tensor, "*shape"],
    targets: Float[Tensor, "*shape"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float32[Tensor, "*shape"]:
    """Focal loss (Lin et al., Eq. 5), elementwise.

    A target between 0 and 1 generalises it: |target - p|^gamma modulates (quality focal loss).

    Args:
        logits: Any shape.
        targets: Same shape, in [0, 1].
        alpha: Weight of positives; negatives get 1 - alpha; negative: no weighting.
        gamma: Focus on hard examples.
    """
    logits, targets = logits.float(), targets.float()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = entropy * (targets - logits.sigmoid()).abs() ** gamma
    if alpha >= 0:
        loss = loss * torch.where(targets > 0, alpha, 1 - alpha)
    return loss


def dice(probs: Float[Tensor, "n p"], targets: Float[Tensor, "n p"]) -> Float32[Tensor, "n"]:
    """Dice loss with squared denominators (V-Net): (n, p), (n, p) in [0, 1] to (n,) in [0, 1]."""
    probs, targets = probs.float(), targets.float()
    overlap = (probs * targets).sum(-1)
    return 1 - 2 * overlap / (probs.square().sum(-1) + targets.square().sum(-1) + DICE_EPS)


def sample_classes(
    present: Int64[Tensor, "_"],
    weights: Float[Tensor, "K"],
    total: int,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, "_"]:
    """Classes that take part in a federated loss: those present, filled up by weighted draws.

    Args:
        present: Labels in the batch, any length, int64; K stands for background and counts toward
            `total`, as in the published code.
        weights: (K,) sampling weights, image count to the power 0.5.
        total: How many classes to reach.
        generator: For the draws.

    Returns:
        Sorted unique classes; may contain K.
    """
    unique: Tensor = torch.unique(present)
    missing = total - len(unique)
    if missing <= 0:
        return unique
    chances = weights.float().clone()
    chances[unique[unique < len(chances)]] = 0
    missing = min(missing, int((chances > 0).sum()))
    if missing == 0:
        return unique
    drawn = torch.multinomial(chances, missing, replacement=False, generator=generator)
    return torch.cat([unique, drawn]).sort().values
