"""A whole prediction as one function of tensors: size, steps, proposals fixed, noise handed in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.inference.pipeline import Pipeline
from diffinst.io.images import ImageSource, read_image
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import clip
from diffinst.ops.images import SIZE_DIVISOR, resize
from diffinst.ops.masks import MASK_STRIDE, aligned_bilinear, enlarge
from diffinst.structures import ImageBatch

ABSENT = -1.0  # score of a row without an instance
INPUTS = ("image", "start", "renoise", "renewal")


def fitted(source: ImageSource, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of any size as (3, height, width) RGB of the exported size.

    Raises:
        ImageReadError: It cannot be read; names it.
    """
    image = torch.from_numpy(read_image(source)).permute(2, 0, 1)
    return resize(image, size).round().byte().numpy()


def exported_inputs(
    image: NDArray[np.uint8], config: Config, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """What an exported model takes.

    Args:
        image: (3, height, width) RGB of its size.
        config: With the steps and proposals it was exported with.
        seed: Of the noise.
    """
    sampler = config.sampler
    noise = Noise.draw([seed], sampler.steps, sampler.proposals, config.model.diffusion)
    values = (noise.start, noise.renoise, noise.renewal)
    arrays: list[Any] = [image[None].astype(np.float32), *(v.float().numpy() for v in values)]
    return dict(zip(INPUTS, arrays, strict=True))


class FixedModel(nn.Module):
    """What is exported; plain tensors in, plain tensors out, no data-dependent branch.

    Args:
        network: In eval mode.
        config: Steps, proposals, suppression, number kept, mask threshold.
        size: (height, width) of the images.
        postprocess: Suppression and masks inside, or left to the caller.
    """

    def __init__(
        self,
        network: DiffusionInstNetwork,
        config: Config,
        size: tuple[int, int],
        *,
        postprocess: bool,
    ) -> None:
        super().__init__()
        self.network, self.config, self.size = network, config, size
        self.pipeline = Pipeline(network, config, Options.of(config))
        self.nms_iou = config.sampler.nms_iou
        self.postprocess = postprocess
        bottom, right = (-side % SIZE_DIVISOR for side in size)
        self.padding = (0, right, 0, bottom)

    def forward(
        self, image: Tensor, start: Tensor, renoise: Tensor, renewal: Tensor
    ) -> tuple[Tensor, ...]:
        """One image.

        Args:
            image: (1, 3, height, width) float32 RGB in [0, 255].
            start: (1, N, 4) float32 x_T.
            renoise: (S - 1, 1, N, 4) float32, the z of each transition.
            renewal: (S - 1, 1, N, 4) float32, fresh starts.

        Returns:
            With post-processing boxes (n, 4) xyxy pixels, scores (n,), labels (n,) and masks
            (n, height, width) uint8, best first; n is always `max_detections` (or all candidates,
            if these are fewer), and rows without an instance have the score -1. Without it boxes
            (M, 4), scores (M,), labels (M,) and filters (M, d) of all candidates, and F_mask
            (c, height / 4, width / 4), padded.
        """
        batch = ImageBatch(F.pad(image, self.padding), (self.size,))
        encoded = self.pipeline.encode(batch)
        *_, last = self.pipeline.run(encoded, Noise(start, renoise, renewal))
        found = last.candidates
        boxes, scores, labels, filters = (
            v[0] for v in (found.boxes, found.scores, found.labels, found.filters)
        )
        if not self.postprocess:
            return boxes, scores, labels, filters, encoded.mask_features[0]
        apart = self._classes_apart(boxes, labels)
        kept = self._survivors(apart, scores)
        seen = clip(boxes, self.size)
        kept = kept & ((seen[:, 2:] - seen[:, :2]) > 0).all(1)
        most = min(self.config.postprocess.max_detections, len(boxes))
        scores, best = torch.where(kept, scores, ABSENT).topk(most)
        masks = self._masks(encoded.mask_features, filters[best], boxes[best])
        return seen[best], scores, labels[best], masks.to(torch.uint8)

    def _classes_apart(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """(M, 4) boxes of each class in a square of its own.

        Runtimes ask for float32: the squares lie in a lattice, not in a row, so that coordinates
        stay small enough to tell thin boxes apart with a thousand classes.
        """
        limit = 4.0 * max(self.size)
        side = math.ceil(math.sqrt(self.network.config.num_classes))
        row = torch.div(labels, side, rounding_mode="floor")
        shift = torch.stack([labels - row * side, row], 1).to(boxes.dtype) * (2 * limit + 1)
        return boxes.clamp(-limit, limit) + shift.repeat(1, 2)

    def _survivors(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """(M,) bool, which boxes suppression leaves.

        Two boxes far away from all others take part, as tracing takes for granted that two remain.
        """
        away = boxes.new_tensor([[-3.0, -3.0, -2.0, -2.0], [-5.0, -5.0, -4.0, -4.0]])
        boxes = torch.cat([boxes, away * boxes.abs().max().clamp(min=1)])
        kept = nms(boxes, torch.cat([scores, scores.new_zeros(2) - 2]), self.nms_iou)
        return boxes.new_zeros(len(boxes)).index_fill(0, kept, 1)[:-2] > 0

    def _masks(self, mask_features: Tensor, filters: Tensor, boxes: Tensor) -> Tensor:
        """(n, height, width) bool."""
        image = torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        if self.network.config.filters.evaluate == "grid":
            probs = self._paste_grid(mask_features, filters, boxes, image)
        else:
            logits = self.network.mask_head.on_map(mask_features, filters, boxes, image)
            probs = aligned_bilinear(logits.sigmoid()[:, None], MASK_STRIDE)[:, 0]
            probs = probs[:, : self.size[0], : self.size[1]]
            probs = probs * self._windows(clip(boxes, self.size).floor())
        return probs > self.config.postprocess.mask_threshold

    def _windows(self, windows: Tensor) -> Tensor:
        """(n, height, width) 1 inside integer boxes, 0 outside."""
        inside = []
        for axis, length in ((1, self.size[0]), (0, self.size[1])):
            pixel = torch.arange(length, device=windows.device, dtype=windows.dtype)
            low, high = windows[:, axis, None], windows[:, axis + 2, None]
            inside.append(((pixel >= low) & (pixel < high)).to(windows.dtype))
        return inside[0][:, :, None] * inside[1][:, None]

    def _paste_grid(
        self, mask_features: Tensor, filters: Tensor, boxes: Tensor, image: Tensor
    ) -> Tensor:
        """(n, height, width) probabilities from a grid inside each box."""
        config = self.network.config.filters
        size = config.grid_test
        logits = self.network.mask_head.on_grid(mask_features, filters, boxes, image, size)
        probs = logits.sigmoid().view(-1, size, size)
        areas = enlarge(boxes, config.grid_margin)
        rows = _taps(areas[:, 1], areas[:, 3], self.size[0], size)
        columns = _taps(areas[:, 0], areas[:, 2], self.size[1], size)
        return rows @ probs @ columns.transpose(1, 2)


def _taps(low: Tensor, high: Tensor, length: int, size: int) -> Tensor:
    """(n, length, size) weights of grid cells over [low, high] at pixel centres; 0 outside."""
    centres = torch.arange(length, device=low.device, dtype=low.dtype) + 0.5
    cell = ((high - low).clamp(min=1e-6) / size)[:, None]
    position = ((centres - low[:, None]) / cell - 0.5).clamp(0, size - 1)
    cells = torch.arange(size, device=low.device, dtype=low.dtype)
    weights = (1 - (position[..., None] - cells).abs()).clamp(min=0)  # a tent over each cell
    covered = (centres > low[:, None]) & (centres < high[:, None])
    return weights * covered[..., None].to(low.dtype)
