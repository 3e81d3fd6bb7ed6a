"""The sampling loop: from noise to boxes and filters in any number of DDIM steps (Eq. 6).

Shapes are fixed: renewal moves kept proposals to the front and fills up with `torch.where`, so any
batch works and one image never changes another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffinst.config import DiffusionConfig, SamplerConfig
from diffinst.diffusion.ddim import ddim_step, time_pairs
from diffinst.diffusion.schedule import Schedule, cosine_schedule
from diffinst.diffusion.signal import draw_noise, from_signal, to_signal
from diffinst.models.network import DiffusionInstNetwork, Encoded
from diffinst.ops.boxes import iou
from diffinst.structures import StageOutput


@dataclass(frozen=True)
class Noise:
    """Every random draw of a run over B images with N proposals and S steps.

    Attributes:
        start: (B, N, 4) x_T.
        renoise: (S - 1, B, N, 4) N(0, 1), the z of each transition, for kept proposals in order.
        renewal: (S - 1, B, N, 4) fresh starts, for renewed proposals in order.
    """

    start: Tensor
    renoise: Tensor
    renewal: Tensor

    @classmethod
    def draw(cls, seeds: Sequence[int], config: SamplerConfig, diffusion: DiffusionConfig) -> Noise:
        """One independent stream per image, from its own seed: batches equal single images."""
        images = [_draw_one(seed, config, diffusion) for seed in seeds]
        start, renoise, renewal = zip(*images, strict=True)
        return cls(torch.stack(start), torch.stack(renoise, dim=1), torch.stack(renewal, dim=1))

    def to(self, device: torch.device | str) -> Noise:
        """The same draws on another device."""
        return Noise(self.start.to(device), self.renoise.to(device), self.renewal.to(device))


def _draw_one(
    seed: int, config: SamplerConfig, diffusion: DiffusionConfig
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    starts = draw_noise(config.steps * config.proposals, diffusion, generator)
    starts = starts.view(config.steps, config.proposals, 4)
    renoise = torch.randn(config.steps - 1, config.proposals, 4, generator=generator)
    return starts[0], renoise, starts[1:]


@dataclass(frozen=True)
class SampleStep:
    """One denoising step of a run.

    Attributes:
        index: 0 first.
        time: t.
        x_t: (B, N, 4) state that entered.
        start: (B, N, 4) xyxy pixels that entered the decoder.
        stages: Its outputs.
        kept: (B, N) bool, proposals that go on; the others are renewed.
        active: (B,) bool, images that had not stopped before this step.
        counts: (B,) bool, images whose result this step enters; None: it enters none.
    """

    index: int
    time: int
    x_t: Tensor
    start: Tensor
    stages: list[StageOutput]
    kept: Tensor
    active: Tensor
    counts: Tensor | None


class Sampler:
    """Runs the reverse process over an encoded batch.

    Args:
        network: In eval mode.
        config: Steps, renewal, ensemble.
    """

    def __init__(self, network: DiffusionInstNetwork, config: SamplerConfig) -> None:
        self.network = network
        self.config = config
        self.diffusion = network.config.diffusion
        self.schedule: Schedule = cosine_schedule(self.diffusion.timesteps)
        self.times = time_pairs(config.steps, self.diffusion.timesteps)

    def run(self, encoded: Encoded, noise: Noise) -> Iterator[SampleStep]:
        """Yield each step as it comes; stop iterating whenever the result is good enough.

        Args:
            encoded: The encoded batch.
            noise: All random draws, B images.
        """
        config, scale = self.config, encoded.scale
        x = noise.start
        active = torch.ones(len(x), dtype=torch.bool, device=x.device)
        before: StageOutput | None = None
        for index, (now, following) in enumerate(self.times):
            start = from_signal(x, scale, self.diffusion)
            t = torch.full((len(x),), now, device=x.device)
            stages = self.network.denoise(encoded, start, t)
            last = stages[-1]
            kept = last.logits.float().sigmoid().amax(-1) > config.renewal_threshold
            going_on = active if following >= 0 else torch.zeros_like(active)
            if config.early_stop is not None and before is not None:
                going_on = going_on & ~_settled(before, last, kept, config)
            counts = self._counts(index, active, going_on)
            yield SampleStep(index, now, x, start, stages, kept, active, counts)
            if following < 0 or (config.early_stop is not None and not bool(going_on.any())):
                return
            active = going_on
            before = last
            x_start = to_signal(last.boxes, scale, self.diffusion)
            x_start = x_start.clamp(-self.diffusion.scale, self.diffusion.scale)
            x = self._advance(x, x_start, kept, index, noise, now, following)

    def _counts(self, index: int, active: Tensor, going_on: Tensor) -> Tensor | None:
        last = self.config.steps - 1
        match self.config.ensemble:
            case "all":
                return active
            case "last":  # of each image, wherever it stopped
                stops_early = self.config.early_stop is not None
                return active & ~going_on if index == last or stops_early else None
            case "official":
                return active if index < last or last == 0 else None

    def _advance(
        self,
        x: Tensor,
        x_start: Tensor,
        kept: Tensor,
        index: int,
        noise: Noise,
        now: int,
        following: int,
    ) -> Tensor:
        """Kept proposals first, in order, one DDIM step further; the rest starts again."""
        position = torch.arange(x.shape[1], device=x.device).expand_as(kept)
        count = kept.sum(1)[:, None]
        place = torch.where(kept, kept.cumsum(1) - 1, count + (~kept).cumsum(1) - 1)
        order = torch.zeros_like(place).scatter(1, place, position)[..., None].expand_as(x)
        moved = ddim_step(
            x.gather(1, order),
            x_start.gather(1, order),
            noise.renoise[index],
            now=now,
            following=following,
            schedule=self.schedule,
            eta=self.config.eta,
        )
        fresh_row = (position - count).clamp(min=0)[..., None].expand_as(x)
        fresh = noise.renewal[index].gather(1, fresh_row)
        return torch.where((position < count)[..., None], moved, fresh.to(moved))


def _settled(before: StageOutput, now: StageOutput, kept: Tensor, config: SamplerConfig) -> Tensor:
    """(B,) images whose confident boxes all stood, in the same class, in the step before."""
    assert config.early_stop is not None
    was = before.logits.float().sigmoid().amax(-1) > config.renewal_threshold
    overlap = iou(now.boxes[:, :, None], before.boxes[:, None])
    same = now.logits.argmax(-1)[:, :, None] == before.logits.argmax(-1)[:, None]
    found = ((overlap >= config.early_stop) & same & was[:, None]).any(2)
    return (found | ~kept).all(1) & kept.any(1)


@dataclass(frozen=True)
class Pool:
    """Scored candidates of a batch, M an image.

    Attributes:
        boxes: (B, M, 4) xyxy pixels of the network input.
        scores: (B, M) probabilities; -1 where a stopped image has no candidate.
        labels: (B, M) int64.
        filters: (B, M, d).
    """

    boxes: Float[Tensor, "B M 4"]
    scores: Float[Tensor, "B M"]
    labels: Int64[Tensor, "B M"]
    filters: Float[Tensor, "B M d"]


def pool_step(output: StageOutput, active: Bool[Tensor, "B"]) -> Pool:
    """The N best (proposal, class) pairs of each image; a proposal may have several classes.

    Args:
        output: Of the last decoder stage.
        active: (B,) images that take part.
    """
    count, classes = output.logits.shape[1:]
    scores, flat = output.logits.float().sigmoid().flatten(1).topk(count, dim=1, sorted=False)
    proposal = (flat // classes)[..., None]
    return Pool(
        boxes=output.boxes.gather(1, proposal.expand(-1, -1, 4)),
        scores=torch.where(active[:, None], scores, -1.0),
        labels=flat % classes,
        filters=output.filters.gather(1, proposal.expand(-1, -1, output.filters.shape[-1])),
    )


def pool_steps(steps: Sequence[SampleStep]) -> Pool:
    """Candidates of all steps that count, side by side."""
    pools = [pool_step(s.stages[-1], s.counts) for s in steps if s.counts is not None]
    return Pool(
        torch.cat([p.boxes for p in pools], 1),
        torch.cat([p.scores for p in pools], 1),
        torch.cat([p.labels for p in pools], 1),
        torch.cat([p.filters for p in pools], 1),
    )
