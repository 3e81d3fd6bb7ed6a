"""The objects of a batch side by side, and which query of which stage is paired with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffinst.structures import Targets
from diffinst.training.matcher import FREE


@dataclass(frozen=True)
class PackedTargets:
    """The objects of a batch, padded to the fullest image: G columns.

    Attributes:
        boxes: (B, G, 4) xyxy pixels.
        labels: (B, G) int64, 0 where padded.
        valid: (B, G) bool.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor

    @classmethod
    def of(cls, targets: Sequence[Targets], device: torch.device) -> PackedTargets:
        """Pack one `Targets` per image."""
        widest = max((len(t) for t in targets), default=0)
        boxes = torch.zeros(len(targets), widest, 4, device=device)
        labels = torch.zeros(len(targets), widest, dtype=torch.int64, device=device)
        valid = torch.zeros(len(targets), widest, dtype=torch.bool, device=device)
        for i, t in enumerate(targets):
            boxes[i, : len(t)] = t.boxes
            labels[i, : len(t)] = t.labels
            valid[i, : len(t)] = True
        return cls(boxes, labels, valid)


@dataclass(frozen=True)
class Match:
    """Matched pairs of all stages, stage by stage, image by image, in query order.

    Attributes:
        stage, image, query, target: (M,) int64 each; `target` counts within its image.
        owner: (S, B, N) int64 object of each query or `FREE`.
    """

    stage: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    owner: Tensor

    @classmethod
    def of(cls, owner: Tensor) -> Match:
        """From (S, B, N) owners."""
        stage, image, query = torch.nonzero(owner != FREE, as_tuple=True)
        return cls(stage, image, query, owner[stage, image, query], owner)

    def pairs(self) -> Tensor:
        """(S,) float32 matched pairs of each stage."""
        return self.per_stage(torch.ones_like(self.stage, dtype=torch.float32))

    def per_stage(self, values: Tensor) -> Tensor:
        """Sum (M,) values within each stage: (S,)."""
        stages = self.owner.shape[0]
        return values.new_zeros(stages).index_add(0, self.stage, values)

    def of_queries(self, outputs: Tensor) -> Tensor:
        """(M, ...) rows of the paired queries, out of (S, B, N, ...)."""
        return outputs[self.stage, self.image, self.query]

    def of_objects(self, objects: Tensor) -> Tensor:
        """(M, ...) rows of the paired objects, out of (B, G, ...)."""
        return objects[self.image, self.target]
