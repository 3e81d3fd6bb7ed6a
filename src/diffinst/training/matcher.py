"""Which query learns which object: dynamic-k matching, for all stages and images at once.

Each object takes its k cheapest queries, k from how well it is covered; no query serves two
objects; every object keeps a query whenever there are enough of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from diffinst.config import MatcherConfig
from diffinst.ops.boxes import giou, iou

ClassCost = Literal["focal", "log"]
OUTSIDE_OBJECT_COST = 100.0  # box centre not inside the object
OUTSIDE_ALL_COST = 10_000.0  # box centre in no object's neighbourhood
NEIGHBOURHOOD = 2.5  # half side of an object's neighbourhood, in object sizes
HELD_COST = 1e6  # beyond all others
FREE = -1


def class_cost(
    logits: Float[Tensor, "R P K"], labels: Int64[Tensor, "R G"], kind: ClassCost
) -> Float32[Tensor, "R P G"]:
    """Cost of each query for each object's class: (R, P, K), (R, G) to (R, P, G)."""
    eps = 1e-8
    probs = logits.float().sigmoid()
    index = labels[:, None, :].expand(-1, logits.shape[1], -1)
    p = probs.gather(2, index)
    positive, negative = -(p + eps).log(), -(1 - p + eps).log()
    if kind == "log":
        return positive - negative
    return 0.25 * (1 - p) ** 2 * positive - 0.75 * p**2 * negative


def matching_cost(
    logits: Float[Tensor, "R P K"],
    boxes: Float[Tensor, "R P 4"],
    target_boxes: Float[Tensor, "R G 4"],
    target_labels: Int64[Tensor, "R G"],
    valid: Bool[Tensor, "R G"],
    scale: Float[Tensor, "R 1 4"],
    config: MatcherConfig,
    kind: ClassCost = "focal",
) -> tuple[Float32[Tensor, "R P G"], Float32[Tensor, "R P G"]]:
    """Costs and IoUs of every query with every object; R rows are images times stages.

    Args:
        logits: (R, P, K).
        boxes: (R, P, 4) xyxy pixels.
        target_boxes: (R, G, 4) xyxy pixels, padded.
        target_labels: (R, G) int64, padded with any class.
        valid: (R, G) bool, False where padded.
        scale: (R, 1, 4) (w, h, w, h) of the unpadded images.
        config: Weights.
        kind: Form of the class cost.

    Returns:
        cost (R, P, G) float32, and iou (R, P, G).
    """
    boxes, targets = boxes.float(), target_boxes.float()
    if not targets.shape[1]:
        empty = boxes.new_zeros(*boxes.shape[:2], 0)
        return empty, empty
    overlap = iou(boxes[:, :, None], targets[:, None])
    unit = scale[:, None]
    if config.l1_unit == "object":
        size = (targets[..., 2:] - targets[..., :2]).clamp(min=1)
        unit = size.repeat(1, 1, 2)[:, None]
    distance = ((boxes[:, :, None] - targets[:, None]) / unit).abs().sum(-1)
    in_object, in_neighbourhood = _centre_inside(boxes, targets)
    in_neighbourhood &= valid[:, None]
    cost = (
        config.l1_weight * distance
        + config.class_weight * class_cost(logits, target_labels, kind)
        - config.giou_weight * giou(boxes[:, :, None], targets[:, None])
        + OUTSIDE_OBJECT_COST * (~in_object)
    )
    nowhere = ~in_neighbourhood.any(2, keepdim=True)
    return cost + OUTSIDE_ALL_COST * nowhere, overlap


def _centre_inside(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether box centres lie inside objects and their neighbourhoods, strictly; (R, P, G)."""
    centre = ((boxes[..., :2] + boxes[..., 2:]) / 2)[:, :, None]
    low, high = targets[:, None, :, :2], targets[:, None, :, 2:]
    middle, reach = (low + high) / 2, NEIGHBOURHOOD * (high - low)
    in_object = ((centre > low) & (centre < high)).all(-1)
    near = ((centre > middle - reach) & (centre < middle + reach)).all(-1)
    return in_object & near, in_object | near


def with_held(cost: Float[Tensor, "R P G"], held: Int64[Tensor, "R P"]) -> Float32[Tensor, "R P G"]:
    """Costs under which a held query goes to its object before all others, and to no other.

    Args:
        cost: (R, P, G).
        held: (R, P) int64 the object of a query, or `FREE`.
    """
    index = torch.arange(cost.shape[2], device=cost.device)
    own = held[:, :, None] == index
    others = (held != FREE)[:, :, None] & ~own
    return torch.where(own, -HELD_COST, torch.where(others, HELD_COST, cost))


def dynamic_k_match(
    cost: Float[Tensor, "R P G"],
    overlap: Float[Tensor, "R P G"],
    valid: Bool[Tensor, "R G"],
    candidates: int = 5,
) -> Int64[Tensor, "R P"]:
    """The object of each query.

    Args:
        cost: (R, P, G) finite costs.
        overlap: (R, P, G) IoUs.
        valid: (R, G) bool.
        candidates: k is the whole part of the sum of an object's `candidates` largest IoUs, at
            least 1.

    Returns:
        (R, P) int64: index of the query's object, or `FREE`. Where a row has at least as many
        queries as objects, every object has one; else every query has an object of its own.
    """
    rows, queries, objects = cost.shape
    owner = torch.full((rows, queries), FREE, dtype=torch.int64, device=cost.device)
    if not objects or not queries:
        return owner
    most = min(candidates, queries)
    cost = torch.where(valid[:, None], cost.float().nan_to_num(nan=1e30), torch.inf)
    k = overlap.topk(most, dim=1).values.sum(1).int().clamp(min=1, max=most)  # (R, G)
    cheapest = cost.topk(most, dim=1, largest=False).indices  # (R, most, G)
    rank = torch.arange(most, device=cost.device)[None, :, None]
    takes = torch.zeros_like(cost, dtype=torch.bool)
    takes.scatter_(1, cheapest, (rank < k[:, None]) & valid[:, None])

    takers = takes.sum(2)
    owner = torch.where(takers == 1, takes.int().argmax(2), owner)
    owner = torch.where(takers > 1, cost.argmin(2), owner)
    return _serve_everyone(owner, cost, valid)


def _serve_everyone(owner: Tensor, cost: Tensor, valid: Tensor) -> Tensor:
    """Give objects without a query their cheapest free one, or else one that its object can spare.

    Ends after at most G rounds, for each serves one more object at least: who loses all its spare
    queries in a round had two or more, and each of them now serves another object.
    """
    index = torch.arange(cost.shape[2], device=cost.device)
    while True:
        held = owner[:, :, None] == index  # (R, P, G)
        free = owner == FREE
        any_free = free.any(1, keepdim=True)
        spare = (held & (held.sum(1, keepdim=True) > 1)).any(2)
        on_offer = torch.where(any_free, free, spare)  # (R, P)
        unserved = valid & ~held.any(1) & on_offer.any(1, keepdim=True)  # (R, G)
        if not bool(unserved.any()):
            return owner
        choice = torch.where(on_offer[:, :, None], cost, torch.inf).argmin(1)  # (R, G)
        claims = torch.zeros_like(held).scatter_(1, choice[:, None], unserved[:, None])
        winner = torch.where(claims, cost, torch.inf).argmin(2)  # (R, P)
        owner = torch.where(claims.any(2), winner, owner)
