"""Instances of one image whose masks are made when they are asked for, and kept from then on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffinst.inference.masks import crop_masks
from diffinst.inference.select import Detections
from diffinst.models.network import DiffusionInstNetwork
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.structures import Encoded


class LateInstances:
    """Detections that become `Instances` where some of them are picked.

    Args:
        kept: n detections.
        encoded: The image they were found on.
        size: Its (height, width).
        network: Whose filters they are.
        threshold: Probability from which on a pixel belongs to a mask.

    Attributes:
        boxes: (n, 4) xyxy pixels of the original image, on the CPU.
    """

    def __init__(
        self,
        kept: Detections,
        encoded: Encoded,
        size: tuple[int, int],
        network: DiffusionInstNetwork,
        threshold: float,
    ) -> None:
        self.kept, self.encoded, self.size = kept, encoded, size
        self.network, self.threshold = network, threshold
        self.boxes = kept.output_boxes.float().cpu()
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}  # window and patch, on the CPU

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, which: Sequence[int]) -> Instances:
        """Those at some places, with their masks."""
        places = torch.tensor(list(which), dtype=torch.int64)
        self._make([i for i in dict.fromkeys(which) if i not in self._masks])
        made = [self._masks[i] for i in which]
        windows = torch.stack([w for w, _ in made]) if made else places.new_zeros(0, 4)
        masks = CroppedMasks(windows, tuple(patch for _, patch in made), self.size)
        scores, labels = self.kept.scores.float().cpu(), self.kept.labels.cpu()
        names = self.network.config.names
        return Instances(
            self.boxes[places], scores[places], labels[places], masks, self.size, names
        )

    def _make(self, new: list[int]) -> None:
        if not new:
            return
        some = self.kept[torch.tensor(new, dtype=torch.int64, device=self.kept.boxes.device)]
        head = self.network.mask_head
        masks = crop_masks(some, self.encoded, 0, self.size, head, self.threshold).to("cpu")
        self._masks |= dict(zip(new, zip(masks.windows, masks.patches, strict=True), strict=True))
