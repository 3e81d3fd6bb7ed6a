"""What every prediction is, in one place (Figure 2; Eq. 6).

    image --encode--> Encoded --start--> [ denoise -> merge -> renew ]*steps --> Candidates
        --select, mask--> Instances

| code | paper |
|---|---|
| `x` | the boxes of all proposals as signal, b_t |
| `stages` | what the decoder f makes of b_t and t |
| `sampler` | from b_t to the boxes of the next step |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor

from diffinst.config import Config, Options, PreprocessConfig
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import from_signal
from diffinst.diffusion.solvers.ddim import Ddim
from diffinst.diffusion.start import Start
from diffinst.inference.found import candidates_of, merged, stopped
from diffinst.inference.launch import Launch, Tensors, direct
from diffinst.inference.masks import crop_masks
from diffinst.inference.samplers import Sampler
from diffinst.inference.samplers.ddim import DdimSampler
from diffinst.inference.samplers.search import SearchSampler
from diffinst.inference.select import select
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import fit_size, pad_batch, resize
from diffinst.results.instances import Instances
from diffinst.results.meta import Meta
from diffinst.structures import Candidates, Encoded, ImageBatch, Pyramid, StageOutput

Size: TypeAlias = tuple[int, int]


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
        taken: (B,) int64, steps that each has had.
        candidates: What this step and those before it found.
    """

    index: int
    time: int
    x_t: Tensor
    boxes: Tensor
    stages: list[StageOutput]
    kept: Tensor
    active: Tensor
    taken: Tensor
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
        self.sampler = self._sampler()
        self.times = self.sampler.times()

    def _sampler(self) -> Sampler:
        options, diffusion, schedule = self.options, self.diffusion, self.schedule
        match options.kind:
            case "ddim":
                return DdimSampler(options, diffusion, schedule, Ddim(options.eta))
            case "search":
                return SearchSampler(options, diffusion, schedule)

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
        options = self.options
        times = self.sampler.times(starts) if starts else self.times
        x, t = self.sampler.begin(starts, outputs, encoded, noise.start)
        active = torch.ones(len(encoded), dtype=torch.bool, device=x.device)
        before, found, taken = None, None, torch.zeros_like(active, dtype=torch.int64)
        for index, (now, following) in enumerate(times):
            boxes, stages, kept, x_next = self._step(encoded, x, t, noise, index, now, following)
            last, final = stages[-1], following < 0
            own = candidates_of(last, active)
            stop = stopped(options, before, last, found, own)
            found = merged(found, own, active, options.ensemble, final=final)
            taken = taken + active
            yield Step(index, now, x, boxes, stages, kept, active, taken, found)
            active = active if stop is None else active & ~stop
            if final or (stop is not None and not bool(active.any())):
                return
            before, x, t = last, x_next, torch.full((len(x),), following, device=x.device)

    def _step(
        self,
        encoded: Encoded,
        x: Tensor,
        t: Tensor,
        noise: Noise,
        index: int,
        now: int,
        following: int,
    ) -> tuple[Tensor, list[StageOutput], Tensor, Tensor]:
        """Decoder input, its outputs, who is kept, and x at the next time."""
        final, shapes = following < 0, encoded.pyramid.shapes

        def work(table: Tensor, scale: Tensor, x: Tensor, t: Tensor, *draws: Tensor) -> Tensors:
            boxes = from_signal(x, scale, self.diffusion)
            stages = self.network.decoder(Pyramid.of_table(table, shapes), boxes, t)
            kept, x_next = self.sampler.kept(stages[-1]), x
            if not final:
                x_next = self.sampler.advance(
                    x, stages[-1], kept, scale, *draws, now=now, following=following
                )
            flat = chain.from_iterable((s.logits, s.boxes, s.filters, s.queries) for s in stages)
            return boxes, kept, x_next, *flat

        draws = () if final else (noise.renoise[index], noise.renewal[index])
        name = ("step", shapes, now, following, self.sampler.key)
        inputs = (encoded.pyramid.table, encoded.scale, x, t, *draws)
        boxes, kept, x_next, *flat = self.launch(name, work, inputs)
        stages = [StageOutput(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return boxes, stages, kept, x_next

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
        head, threshold = self.network.mask_head, self.options.mask_threshold

        def quality(boxes: Tensor, filters: Tensor) -> Tensor:
            here = torch.full((len(boxes),), image, device=boxes.device)
            features, sizes = encoded.mask_features, encoded.sizes
            return head.expected_iou(features, filters, boxes, here, sizes, threshold)

        kept = select(candidates, image, encoded.sizes[image], output, self.options, quality)
        masks = crop_masks(kept, encoded, image, output, head, threshold)
        boxes, scores = kept.output_boxes.float().cpu(), kept.scores.float().cpu()
        names = self.network.config.names
        return Instances(boxes, scores, kept.labels.cpu(), masks, output, names)

    def predict(
        self,
        encoded: Encoded,
        noise: Noise,
        outputs: Sequence[Size],
        starts: Sequence[Start] = (),
    ) -> list[Instances]:
        """The instances of all images after the last step; arguments as in `run`."""
        step = deque(self.run(encoded, noise, starts, outputs), maxlen=1).pop()
        return [self.result(step, encoded, i, output) for i, output in enumerate(outputs)]

    def result(self, step: Step, encoded: Encoded, image: int, output: Size) -> Instances:
        """The instances of one image after a step; arguments as in `instances`."""
        found, options = self.instances(step.candidates, encoded, image, output), self.options
        steps = int(step.taken[image])
        return replace(found, meta=Meta(steps, options.proposals, options.kind, options.seed))
