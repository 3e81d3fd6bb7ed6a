"""Every random draw of a prediction: where boxes start, and what is added on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from diffinst.config import DiffusionConfig


@dataclass(frozen=True)
class Noise:
    """The draws of a run over B images with N proposals and S steps.

    Attributes:
        start: (B, N, 4) x_T.
        renoise: (S - 1, B, N, 4) N(0, 1), the z of each transition, for kept proposals in order.
        renewal: (S - 1, B, N, 4) fresh starts, for renewed proposals in order.
    """

    start: Float[Tensor, "B N 4"]
    renoise: Float[Tensor, "S B N 4"]
    renewal: Float[Tensor, "S B N 4"]

    @classmethod
    def draw(
        cls, seeds: Sequence[int], steps: int, proposals: int, config: DiffusionConfig
    ) -> Noise:
        """One independent stream per image, from its own seed: batches equal single images."""
        images = [_draw_one(seed, steps, proposals, config) for seed in seeds]
        start, renoise, renewal = zip(*images, strict=True)
        return cls(torch.stack(start), torch.stack(renoise, dim=1), torch.stack(renewal, dim=1))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.start)

    def __getitem__(self, images: slice) -> Noise:
        """The draws of some of the images; views, nothing is copied."""
        return Noise(self.start[images], self.renoise[:, images], self.renewal[:, images])

    def to(self, device: torch.device | str) -> Noise:
        """The same draws on another device."""
        return Noise(self.start.to(device), self.renoise.to(device), self.renewal.to(device))


def _draw_one(
    seed: int, steps: int, proposals: int, config: DiffusionConfig
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    starts = draw_noise(steps * proposals, config, generator).view(steps, proposals, 4)
    renoise = torch.randn(steps - 1, proposals, 4, generator=generator)
    return starts[0], renoise, starts[1:]


def draw_noise(
    count: int, config: DiffusionConfig, generator: torch.Generator | None = None
) -> Float32[Tensor, "{count} 4"]:
    """x_T of `count` proposals, (count, 4): N(0, 1), or a low-discrepancy sequence of the like.

    Independent draws leave holes where objects are missed; a scrambled Sobol sequence does not. Its
    centres are uniform over the image, its sizes normal.
    """
    if config.noise == "normal":
        return torch.randn(count, 4, generator=generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    engine = torch.quasirandom.SobolEngine(4, scramble=True, seed=seed)
    uniform = engine.draw(count)
    centres = (uniform[:, :2] * 2 - 1) * config.scale
    sizes = torch.special.ndtri(uniform[:, 2:].clamp(1e-6, 1 - 1e-6))
    return torch.cat([centres, sizes], dim=1)
