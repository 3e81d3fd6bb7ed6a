"""The denoising decoder: stages that hand boxes and queries on, told the time (Figure 2)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from diffinst.config import DecoderConfig
from diffinst.models.decoder_stage import DecoderStage
from diffinst.models.linear import Linear
from diffinst.structures import Pyramid, StageOutput

CLASS_PRIOR = 0.01  # focal loss paper, 4.1: initial probability of every class
MAX_PERIOD = 10_000  # Transformer paper, 3.5


def sinusoidal_embedding(
    t: Int64[Tensor, "*shape"], width: int
) -> Float32[Tensor, "*shape {width}"]:
    """(...) times to (..., width): all sines, then all cosines; angles in float32."""
    half = width // 2
    rate = -math.log(MAX_PERIOD) / (half - 1)
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * rate)
    angles = t.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Sinusoid of width D, then a two-layer perceptron to 4D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            Linear(width, 4 * width), nn.GELU(), Linear(4 * width, 4 * width)
        )

    def forward(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape {4*self.width}"]:
        """(...) times to (..., 4D)."""
        result: Tensor = self.layers(sinusoidal_embedding(t, self.width))
        return result


class Decoder(nn.Module):
    """Noisy boxes to classes, boxes and filters, stage by stage.

    Args:
        config: Sizes.
        num_classes: K.
        filter_size: d.
    """

    def __init__(self, config: DecoderConfig, num_classes: int, filter_size: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.time = TimeEmbedding(config.width)
        self.stages = nn.ModuleList(
            DecoderStage(config, num_classes, filter_size) for _ in range(config.stages)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform for every matrix, a prior for class biases, PyTorch's other biases."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for stage in self.stages:
            assert isinstance(stage, DecoderStage)
            nn.init.zeros_(stage.attention.qkv.bias)
            nn.init.zeros_(stage.attention.out.bias)
            nn.init.constant_(stage.class_logits.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
            if self.config.zero_init_deltas:
                nn.init.zeros_(stage.deltas.weight)
                nn.init.zeros_(stage.deltas.bias)

    def forward(
        self, pyramid: Pyramid, boxes: Float[Tensor, "B N 4"], t: Int64[Tensor, "B *P"]
    ) -> list[StageOutput]:
        """Refine boxes through all stages.

        Args:
            pyramid: p2..p5.
            boxes: (B, N, 4) xyxy pixels of the network input.
            t: Times in [0, T): (B,) one for all proposals of an image, or (B, N) one for each.

        Returns:
            One output per stage; boxes pass between stages without gradient, queries with it.
        """
        time = self.time(t)
        outputs: list[StageOutput] = []
        queries: Tensor | None = None
        for stage in self.stages:
            output: StageOutput = stage(pyramid, boxes, queries, time)
            boxes, queries = output.boxes.detach(), output.queries
            outputs.append(output)
        return outputs
