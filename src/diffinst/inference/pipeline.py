"""What every prediction is, in one place (Figure 2; Eq. 6).

    image --encode--> Encoded --[ start -> denoise -> merge ]*steps--> Candidates
        --select--> Detections --mask--> Instances

| code | paper |
|---|---|
| `x` | the boxes of all proposals as signal, b_t |
| `stages` | what the decoder f makes of b_t and t |
| `solver`, `renewed` | from b_t to the next time; proposals that found nothing start again |
| `candidates` | what all steps so far found |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from diffinst.config import Config, Options, PreprocessConfig
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.schedule import cosine_schedule, time_pairs
from diffinst.diffusion.signal import from_signal, to_signal
from diffinst.diffusion.solvers import Solver
from diffinst.diffusion.solvers.ddim import Ddim
from diffinst.diffusion.start import Start, begin
from diffinst.inference.masks import crop_masks
from diffinst.inference.sampler import (
    candidates_of,
    confident,
    kept_first,
    merged,
    renewed,
    settled,
)
from diffinst.inference.select import Detections, select
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import fit_size, pad_batch, resize
from diffinst.results.instances import Instances
from diffinst.structures import Candidates, Encoded, ImageBatch, Pyramid, StageOutput

Size: TypeAlias = tuple[int, int]
Tensors: TypeAlias = tuple[Tensor, ...]
Work: TypeAlias = Callable[..., Tensors]
Launch: TypeAlias = Callable[[Hashable, Work, Tensors], Tensors]
"""Runs a piece of work on its inputs; pieces of one name do the same."""


def direct(name: Hashable, work: Work, inputs: Tensors) -> Tensors:
    """Runs the work as it is."""
    return work(*inputs)


def input_size(size: Size, config: PreprocessConfig) -> Size:
    """(height, width) that the network sees an image of some size at, before padding."""
    return fit_size(
        size, short_side=config.short_side, zoom=config.zoom, long_side=config.long_side
    )


@dataclass(frozen=True)
class Step:
    """One denoising step of a run.

    Attributes:
        index: 0 first.
        time: t.
        x_t: (B, N, 4) signal that entered.
        boxes: (B, N, 4) the same as xyxy pixels of the network input, as the decoder saw it.
        stages: The decoder's outputs.
        kept: (B, N) bool, proposals that go on; the others are renewed.
        active: (B,) bool, images that had not stopped before this step.
        candidates: What this step and those before it found.
    """

    index: int
    time: int
    x_t: Tensor
    boxes: Tensor
    stages: list[StageOutput]
    kept: Tensor
    active: Tensor
    candidates: Candidates


class Pipeline:
    """The way from images to instances, under one set of options.

    Args:
        network: In eval mode.
        config: For the size of the network input.
        options: Steps, proposals, threshold, ...
        launch: How heavy work is run.
    """

    def __init__(
        self,
        network: DiffusionInstNetwork,
        config: Config,
        options: Options,
        launch: Launch = direct,
    ) -> None:
        self.network = network
        self.config = config
        self.options = options
        self.launch = launch
        self.diffusion = network.config.diffusion
        self.schedule = cosine_schedule(self.diffusion.timesteps)
        self.solver: Solver = Ddim(options.eta)
        self._from_noise = self._times(len(self.schedule) - 1)

    def with_options(self, options: Options) -> Pipeline:
        """The same under other options."""
        return Pipeline(self.network, self.config, options, self.launch)

    def prepare(self, images: Sequence[Tensor]) -> ImageBatch:
        """RGB images (3, H, W) of one padded size, resized and padded where they lie."""
        sizes = [
            input_size((int(t.shape[1]), int(t.shape[2])), self.config.preprocess) for t in images
        ]
        return pad_batch([resize(t, size) for t, size in zip(images, sizes, strict=True)])

    def encode(self, images: ImageBatch) -> Encoded:
        """Backbone, pyramid, mask branch: once, whatever the number of steps."""
        pixels = self.network.normalized(images)
        table, mask_features = self.launch("encode", self.network.features, (pixels,))
        return self.network.encoded(table, mask_features, images)

    def run(
        self,
        encoded: Encoded,
        noise: Noise,
        starts: Sequence[Start] = (),
        outputs: Sequence[Size] = (),
    ) -> Iterator[Step]:
        """Yield each step as it comes; stop iterating whenever the result is good enough.

        Args:
            encoded: B images.
            noise: All random draws.
            starts: Boxes to begin with, one start per image, all of one time; none: noise alone.
            outputs: (height, width) of the original images, in whose pixels the starts are.

        Raises:
            ValueError: A start that does not fit; says how.
        """
        options = self.options
        x = self._first(encoded, noise, starts, outputs)
        times = self.times(starts)
        active = torch.ones(len(encoded), dtype=torch.bool, device=x.device)
        before, found = None, None
        for index, (now, following) in enumerate(times):
            boxes, stages, kept, x_next = self._step(encoded, x, noise, index, now, following)
            last, final = stages[-1], following < 0
            found = merged(
                found, candidates_of(last, active), active, options.ensemble, final=final
            )
            yield Step(index, now, x, boxes, stages, kept, active, found)
            if final:
                return
            if options.early_stop is not None:
                if before is not None:
                    threshold, overlap = options.renewal_threshold, options.early_stop
                    active = active & ~settled(before, last, threshold, overlap)
                if not bool(active.any()):
                    return
                before = last
            x = x_next

    def times(self, starts: Sequence[Start] = ()) -> list[tuple[int, int]]:
        """(now, next) of each step: `options.times`, or even ones from the start's time down.

        Raises:
            ValueError: Starts of several times, or more steps than times below the start's.
        """
        first = {start.time for start in starts}
        if len(first) > 1:
            raise ValueError(f"starts of times {sorted(first)} in one batch; give one time to all")
        return self._times(first.pop()) if first else self._from_noise

    def _times(self, first: int) -> list[tuple[int, int]]:
        if self.options.times is not None:
            return list(pairwise([*self.options.times, -1]))
        return time_pairs(self.options.steps, len(self.schedule), first)

    def _first(
        self, encoded: Encoded, noise: Noise, starts: Sequence[Start], outputs: Sequence[Size]
    ) -> Tensor:
        """(B, N, 4) x at the first time."""
        if not starts:
            return noise.start
        rows = []
        for i, (start, output) in enumerate(zip(starts, outputs, strict=True)):
            height, width = encoded.sizes[i]
            ratio = encoded.scale.new_tensor([width / output[1], height / output[0]]).repeat(2)
            scale, draws = encoded.scale[i], noise.start[i]
            rows.append(begin(start, ratio, draws, scale, self.schedule, self.diffusion))
        return torch.stack(rows)

    def _step(
        self, encoded: Encoded, x: Tensor, noise: Noise, index: int, now: int, following: int
    ) -> tuple[Tensor, list[StageOutput], Tensor, Tensor]:
        """Decoder input, its outputs, who is kept, and x at the next time."""
        final, options, shapes = following < 0, self.options, encoded.pyramid.shapes

        def work(table: Tensor, scale: Tensor, x: Tensor, *draws: Tensor) -> Tensors:
            boxes = from_signal(x, scale, self.diffusion)
            t = torch.full((len(x),), now, device=x.device)
            stages = self.network.decoder(Pyramid.of_table(table, shapes), boxes, t)
            last = stages[-1]
            kept = confident(last, options.renewal_threshold)
            x_next = (
                x if final else self._advance(x, last.boxes, scale, kept, draws, now, following)
            )
            flat = chain.from_iterable((s.logits, s.boxes, s.filters, s.queries) for s in stages)
            return boxes, kept, x_next, *flat

        draws = () if final else (noise.renoise[index], noise.renewal[index])
        name = ("step", now, following, options.eta, options.renewal_threshold)
        inputs = (encoded.pyramid.table, encoded.scale, x, *draws)
        boxes, kept, x_next, *flat = self.launch(name, work, inputs)
        stages = [StageOutput(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return boxes, stages, kept, x_next

    def _advance(
        self,
        x: Tensor,
        boxes: Tensor,
        scale: Tensor,
        kept: Tensor,
        draws: Sequence[Tensor],
        now: int,
        following: int,
    ) -> Tensor:
        """Kept proposals one step of the solver further, in order; the rest starts again."""
        x_start = to_signal(boxes, scale, self.diffusion)
        x_start = x_start.clamp(-self.diffusion.scale, self.diffusion.scale)
        order, count = kept_first(kept)
        rows = order[..., None].expand_as(x)
        renoise, fresh = draws
        moved = self.solver.step(
            x.gather(1, rows),
            x_start.gather(1, rows),
            renoise,
            now=now,
            following=following,
            schedule=self.schedule,
        )
        return renewed(moved, fresh, count)

    def select(
        self, candidates: Candidates, encoded: Encoded, image: int, output: Size
    ) -> Detections:
        """What is kept of one image's candidates, best first.

        Args:
            candidates: Of the batch.
            encoded: The batch.
            image: Index into it.
            output: (height, width) of the original image.
        """
        return select(candidates, image, encoded.sizes[image], output, self.options)

    def mask(self, detections: Detections, encoded: Encoded, image: int, output: Size) -> Instances:
        """One image's detections with their masks, in its own pixels; arguments as in `select`."""
        head = self.network.mask_head
        masks = crop_masks(detections, encoded, image, output, head, self.options.mask_threshold)
        return Instances(
            boxes=detections.output_boxes.float().cpu(),
            scores=detections.scores.float().cpu(),
            labels=detections.labels.cpu(),
            mask_crops=masks,
            image_size=output,
            class_names=self.network.config.names,
        )

    def instances(
        self, candidates: Candidates, encoded: Encoded, image: int, output: Size
    ) -> Instances:
        """`select`, then `mask`."""
        return self.mask(self.select(candidates, encoded, image, output), encoded, image, output)

    def stream(
        self, encoded: Encoded, noise: Noise, outputs: Sequence[Size], starts: Sequence[Start] = ()
    ) -> Iterator[list[Instances]]:
        """The instances of all images after each step; arguments as in `run`."""
        for step in self.run(encoded, noise, starts, outputs):
            yield self._all(step, encoded, outputs)

    def predict(
        self, encoded: Encoded, noise: Noise, outputs: Sequence[Size], starts: Sequence[Start] = ()
    ) -> list[Instances]:
        """The instances of all images after the last step; arguments as in `run`."""
        *_, last = self.run(encoded, noise, starts, outputs)
        return self._all(last, encoded, outputs)

    def _all(self, step: Step, encoded: Encoded, outputs: Sequence[Size]) -> list[Instances]:
        return [
            self.instances(step.candidates, encoded, i, output) for i, output in enumerate(outputs)
        ]
