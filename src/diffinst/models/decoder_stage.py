"""One decoder stage: proposal boxes and their RoI features to classes, better boxes and filters."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffinst.config import DecoderConfig
from diffinst.kernels.blocks import by_rows
from diffinst.kernels.roi import pool
from diffinst.models.linear import Linear, OutputLinear
from diffinst.ops.boxes import apply_deltas
from diffinst.structures import Pyramid, StageOutput


class RoIFeatures(nn.Module):
    """RoI features of proposal boxes; no weights, a module so that it can be seen on its own.

    Args:
        config: Sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.size, self.sampling = config.roi_size, config.roi_sampling

    def forward(
        self, pyramid: Pyramid, boxes: Float[Tensor, "B N 4"]
    ) -> Float[Tensor, "B N cells D"]:
        """Boxes (B, N, 4) xyxy pixels to (B, N, size * size, D)."""
        return pool(pyramid, boxes, self.size, self.sampling)


class DynamicConv(nn.Module):
    """Each proposal's own two-layer filter over its RoI features (Sparse R-CNN, 3.2)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.width, self.dynamic_width = config.width, config.dynamic_width
        self.parameters_of = Linear(config.width, 2 * config.width * config.dynamic_width)
        self.norm1 = nn.LayerNorm(config.dynamic_width)
        self.norm2 = nn.LayerNorm(config.width)
        self.out = Linear(config.roi_size**2 * config.width, config.width)
        self.norm3 = nn.LayerNorm(config.width)

    def forward(
        self, queries: Float[Tensor, "M D"], rois: Float[Tensor, "M cells D"]
    ) -> Float[Tensor, "M D"]:
        """Queries (M, D) and RoI features (M, cells, D) to (M, D)."""
        width = self.parameters_of.out_features
        return by_rows(self._interact, self._summarize, queries, rois, width)

    def _interact(self, queries: Tensor, rois: Tensor) -> Tensor:
        first, second = self.parameters_of(queries).chunk(2, dim=-1)
        hidden = rois @ first.unflatten(-1, (self.width, self.dynamic_width))
        hidden = self.norm1(hidden).relu_()
        hidden = hidden @ second.unflatten(-1, (self.dynamic_width, self.width))
        result: Tensor = self.norm2(hidden).relu_()
        return result.flatten(1)

    def _summarize(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.norm3(self.out(hidden)).relu_()
        return result


class SelfAttention(nn.Module):
    """Multi-head self-attention over the proposals of one image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """(B, N, D) to (B, N, D)."""
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)  # (B, heads, N, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class DecoderStage(nn.Module):
    """Attention, dynamic convolution, feed-forward, time modulation, two towers.

    Args:
        config: Sizes.
        num_classes: K.
        filter_size: d.
    """

    def __init__(self, config: DecoderConfig, num_classes: int, filter_size: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.rois = RoIFeatures(config)
        self.attention = SelfAttention(width, config.heads)
        self.interaction = DynamicConv(config)
        self.expand = Linear(width, config.feedforward)
        self.contract = Linear(config.feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.time = OutputLinear(4 * width, 2 * width)
        self.class_tower = _tower(width, config.class_layers)
        self.box_tower = _tower(width, config.box_layers)
        self.class_logits = OutputLinear(width, num_classes)
        self.deltas = OutputLinear(width, 4)
        self.filters = OutputLinear(width, filter_size)

    def forward(
        self,
        pyramid: Pyramid,
        boxes: Float[Tensor, "B N 4"],
        queries: Float[Tensor, "B N D"] | None,
        time: Float[Tensor, "B *P {4*self.config.width}"],
    ) -> StageOutput:
        """One refinement.

        Args:
            pyramid: p2..p5.
            boxes: (B, N, 4) xyxy pixels of the network input; gets no gradient.
            queries: (B, N, D) from the stage before; None in the first stage: mean RoI features.
            time: (B, 4D) time embedding, one for all proposals of an image, or (B, N, 4D).
        """
        rois = self.rois(pyramid, boxes)  # (B, N, S*S, D)
        if queries is None:
            queries = rois.mean(dim=2)
        queries = self.norm1(queries + self.attention(queries))
        mixed = self.interaction(queries.flatten(0, 1), rois.flatten(0, 1))
        queries = self.norm2(queries + mixed.view_as(queries))
        queries = self.norm3(queries + self.contract(self.expand(queries).relu_()))

        scale, shift = (
            self.time(F.silu(time))
            .to(queries.dtype)
            .view(len(time), -1, 2 * self.config.width)
            .chunk(2, dim=-1)
        )
        modulated = queries * (1 + scale) + shift
        box_features = self.box_tower(modulated)
        return StageOutput(
            logits=self.class_logits(self.class_tower(modulated)),
            boxes=apply_deltas(boxes.detach(), self.deltas(box_features)),
            filters=self.filters(box_features),
            queries=queries,
        )


def _tower(width: int, layers: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(layers):
        blocks += [Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks)
