"""What every prediction is, in one place (Figure 2; Eq. 6).

    image --encode--> Encoded --start--> [ denoise -> merge -> renew ]*steps --> Candidates
        --select, mask--> Instances

| code | paper |
|---|---|
| `x` | the boxes of all proposals as signal, b_t |
| `stages` | what the decoder f makes of b_t and t |
| `solver`, `renewed` | from b_t to the next time; what found nothing starts again |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor

from diffinst.config import Config, Options, PreprocessConfig
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import from_signal, to_signal
from diffinst.diffusion.solvers import Solver
from diffinst.diffusion.solvers.ddim import Ddim
from diffinst.diffusion.start import Start, begin, visited
from diffinst.inference.masks import crop_masks
from diffinst.inference.sampler import (
    candidates_of,
    confident,
    kept_first,
    merged,
    renewed,
    settled,
)
from diffinst.inference.select import select
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import fit_size, pad_batch, resize
from diffinst.results.instances import Instances
from diffinst.structures import Candidates, Encoded, ImageBatch, Pyramid, StageOutput

Size: TypeAlias = tuple[int, int]
Tensors: TypeAlias = tuple[Tensor, ...]
Launch: TypeAlias = Callable[[Hashable, Callable[..., Tensors], Tensors], Tensors]
"""Runs a piece of work on its inputs. Whatever holds pieces of work back may go by their name: two
of one name have to do the same to the same inputs, which are tensors alone for that reason."""


def direct(name: Hashable, work: Callable[..., Tensors], inputs: Tensors) -> Tensors:
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
        self.network, self.config, self.options, self.launch = network, config, options, launch
        self.diffusion = network.config.diffusion
        self.schedule = cosine_schedule(self.diffusion.timesteps)
        self.solver: Solver = Ddim(options.eta)
        self.from_noise = visited(options.steps, options.times, self.schedule)

    def prepare(self, images: Sequence[Tensor]) -> ImageBatch:
        """RGB images (3, H, W) of one padded size, resized and padded on their device."""
        given = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        sizes = [input_size(size, self.config.preprocess) for size in given]
        return pad_batch([resize(i, size) for i, size in zip(images, sizes, strict=True)])

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
        options, times, x = self.options, self.from_noise, noise.start
        if starts:
            times = visited(options.steps, options.times, self.schedule, starts)
            x = begin(starts, outputs, encoded, x, self.schedule, self.diffusion)
        active = torch.ones(len(encoded), dtype=torch.bool, device=x.device)
        before, found = None, None
        for index, (now, following) in enumerate(times):
            boxes, stages, kept, x_next = self._step(encoded, x, noise, index, now, following)
            last, final = stages[-1], following < 0
            own = candidates_of(last, active)
            found = merged(found, own, active, options.ensemble, final=final)
            yield Step(index, now, x, boxes, stages, kept, active, found)
            if options.early_stop is not None and before is not None:
                stop = settled(before, last, options.renewal_threshold, options.early_stop)
                active = active & ~stop
            if final or (options.early_stop is not None and not bool(active.any())):
                return
            before, x = last, x_next

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
            x_next = x
            if not final:
                s = self.diffusion.scale
                x_start = to_signal(last.boxes, scale, self.diffusion).clamp(-s, s)
                x_next = self._advance(x, x_start, kept, *draws, now=now, following=following)
            flat = chain.from_iterable((s.logits, s.boxes, s.filters, s.queries) for s in stages)
            return boxes, kept, x_next, *flat

        draws = () if final else (noise.renoise[index], noise.renewal[index])
        name = ("step", shapes, now, following, self.solver, options.renewal_threshold)
        inputs = (encoded.pyramid.table, encoded.scale, x, *draws)
        boxes, kept, x_next, *flat = self.launch(name, work, inputs)
        stages = [StageOutput(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return boxes, stages, kept, x_next

    def _advance(
        self,
        x: Tensor,
        x_start: Tensor,
        kept: Tensor,
        renoise: Tensor,
        fresh: Tensor,
        *,
        now: int,
        following: int,
    ) -> Tensor:
        """Kept proposals one step of the solver further, in order; the rest starts again."""
        order, count = kept_first(kept)
        rows = order[..., None].expand_as(x)
        x, x_start = x.gather(1, rows), x_start.gather(1, rows)
        moved = self.solver.step(
            x, x_start, renoise, now=now, following=following, schedule=self.schedule
        )
        return renewed(moved, fresh, count)

    def instances(
        self, candidates: Candidates, encoded: Encoded, image: int, output: Size
    ) -> Instances:
        """The instances of one image, with masks, in its own pixels.

        Args:
            candidates: Of the batch.
            encoded: The batch.
            image: Index into it.
            output: (height, width) of the original image.
        """
        kept = select(candidates, image, encoded.sizes[image], output, self.options)
        head, threshold = self.network.mask_head, self.options.mask_threshold
        masks = crop_masks(kept, encoded, image, output, head, threshold)
        boxes, scores = kept.output_boxes.float().cpu(), kept.scores.float().cpu()
        names = self.network.config.names
        return Instances(boxes, scores, kept.labels.cpu(), masks, output, names)

    def predict(self, encoded: Encoded, noise: Noise, outputs: Sequence[Size]) -> list[Instances]:
        """The instances of all images after the last step, from noise alone."""
        for step in self.run(encoded, noise):
            found = step.candidates
        return [self.instances(found, encoded, i, output) for i, output in enumerate(outputs)]
