"""A whole prediction as one function of tensors: size, steps, proposals fixed, noise handed in."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional as F
from torchvision.ops import nms

from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.inference.pipeline import Pipeline
from diffinst.inference.select import with_quality
from diffinst.io.images import ImageSource, read_image
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import clip
from diffinst.ops.images import SIZE_DIVISOR, resize
from diffinst.ops.masks import MASK_STRIDE, aligned_bilinear, enlarge
from diffinst.structures import ImageBatch

ABSENT = -1.0  # score of a row without an instance
OUTPUTS = {
    True: ("boxes", "scores", "labels", "masks"),
    False: ("boxes", "scores", "labels", "filters", "mask_features"),
}


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
    """What an exported model takes, by name.

    Args:
        image: (3, height, width) RGB of its size.
        config: With the steps and proposals it was exported with.
        seed: Of the noise.
    """
    return {"image": image[None].astype(np.float32), **noise_inputs(config, seed)}


def noise_inputs(config: Config, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The noise that `predict` draws for a seed, as an exported model takes it.

    Returns:
        `start` (1, N, 4), and with several steps `renewal` and, for DDIM, `renoise`, both
        (S - 1, 1, N, 4).
    """
    sampler = config.sampler
    noise = Noise.draw([seed], sampler.steps, sampler.proposals, config.model.diffusion)
    draws = {"start": noise.start}
    if sampler.steps > 1:
        draws |= {"renoise": noise.renoise} if sampler.kind == "ddim" else {}
        draws["renewal"] = noise.renewal
    return {name: value.float().numpy() for name, value in draws.items()}


class FixedModel(nn.Module):
    """What is exported; plain tensors in, plain tensors out, no data-dependent branch.

    Args:
        network: In eval mode.
        config: Steps, proposals, suppression, number kept, mask threshold.
        size: (height, width) of the images.
        postprocess: Suppression and masks inside, or left to the caller.
        plain: Of PyTorch's own operators alone, none of torchvision's.
    """

    def __init__(
        self,
        network: DiffusionInstNetwork,
        config: Config,
        size: tuple[int, int],
        *,
        postprocess: bool,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.config, self.size = network, config, size
        self.pipeline = Pipeline(network, config, Options.of(config))
        self.nms_iou = config.sampler.nms_iou
        self.postprocess, self.plain = postprocess, plain
        bottom, right = (-side % SIZE_DIVISOR for side in size)
        self.padding = (0, right, 0, bottom)

    def forward(
        self,
        image: Tensor,
        start: Tensor,
        renoise: Tensor | None = None,
        renewal: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One image.

        Args:
            image: (1, 3, height, width) float32 RGB in [0, 255].
            start: (1, N, 4) float32 x_T.
            renoise: (S - 1, 1, N, 4) float32, the z of each transition; None with one step, and
                where the sampler is no DDIM.
            renewal: (S - 1, 1, N, 4) float32, fresh starts; None with one step.

        Returns:
            By name, as in `OUTPUTS`. With post-processing boxes (n, 4) xyxy pixels, scores (n,),
            labels (n,) and masks (n, height, width) uint8, best first; n is always
            `max_detections` (or all candidates, if these are fewer), and rows without an instance
            have the score -1. Without it boxes (M, 4), scores (M,), labels (M,) and filters (M, d)
            of all candidates, and F_mask (c, height / 4, width / 4), padded.
        """
        renewal = start[None, :0, :0] if renewal is None else renewal
        renoise = renewal if renoise is None else renoise  # taken by no one
        batch = ImageBatch(F.pad(image, self.padding), (self.size,))
        encoded = self.pipeline.encode(batch)
        *_, last = self.pipeline.run(encoded, Noise(start, renoise, renewal))
        found = last.candidates
        boxes, scores, labels, filters = (
            v[0] for v in (found.boxes, found.scores, found.labels, found.filters)
        )
        if not self.postprocess:
            return self._named(boxes, scores, labels, filters, encoded.mask_features[0])
        apart = self._classes_apart(boxes, labels)
        kept = self._survivors(apart, scores)
        seen = clip(boxes, self.size)
        kept = kept & ((seen[:, 2:] - seen[:, :2]) > 0).all(1)
        scores = torch.where(kept, scores, ABSENT)
        if self.config.postprocess.mask_quality:
            scores = self._with_quality(encoded.mask_features, filters, boxes, scores)
        scores, best = scores.topk(min(self.config.postprocess.max_detections, len(boxes)))
        masks = self._masks(encoded.mask_features, filters[best], boxes[best])
        return self._named(seen[best], scores, labels[best], masks.to(torch.uint8))

    def _with_quality(
        self, mask_features: Tensor, filters: Tensor, boxes: Tensor, scores: Tensor
    ) -> Tensor:
        """(n,) scores that count the masks' quality, too; those of absent rows stay."""
        post, image = self.config.postprocess, torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        head = self.network.mask_head
        sizes = (self.size,)
        quality = head.expected_iou(
            mask_features, filters, boxes, image, sizes, post.mask_threshold
        )
        counted = with_quality(scores.clamp(min=0), quality, post.mask_quality)
        return torch.where(scores < 0, scores, counted)

    def _named(self, *values: Tensor) -> dict[str, Tensor]:
        return dict(zip(OUTPUTS[self.postprocess], values, strict=True))

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

        torchvision's operator, which ONNX and OpenVINO have as well, or the same without it.
        """
        if self.plain:
            return plain_survivors(boxes, scores, self.nms_iou)
        return self._by_operator(boxes, scores)

    def _by_operator(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """(M,) bool.

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


def plain_survivors(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression by tensor operations of fixed shapes.

    A box stays unless a better one that stays overlaps it. From "all stay" this is applied until
    nothing changes: each round settles at least one more box of every chain, so it ends.

    Args:
        boxes: (M, 4) xyxy.
        scores: (M,); of equal ones the first is better.
        threshold: IoU above which two boxes overlap.

    Returns:
        (M,) bool.
    """
    order = scores.argsort(descending=True, stable=True)
    x0, y0, x1, y1 = boxes[order].unbind(1)
    wide = torch.minimum(x1[:, None], x1) - torch.maximum(x0[:, None], x0)
    high = torch.minimum(y1[:, None], y1) - torch.maximum(y0[:, None], y0)
    both, area = wide.clamp(min=0) * high.clamp(min=0), (x1 - x0) * (y1 - y0)
    overlaps = (both / (area[:, None] + area - both) > threshold).triu(1).float()  # (better, worse)
    kept, _ = while_loop(
        lambda kept, before: (kept != before).any(),
        lambda kept, before: ((kept @ overlaps == 0).float(), kept.clone()),
        (torch.ones_like(scores), torch.zeros_like(scores)),
    )
    return torch.zeros_like(scores).scatter(0, order, kept) > 0
