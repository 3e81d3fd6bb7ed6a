"""A network with its configuration, ready to answer: options, noise, batches of one padded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.start import Start
from diffinst.inference.advice import advice
from diffinst.inference.budget import Budget, Timed
from diffinst.inference.costs import clock_of
from diffinst.inference.launch import Launch, direct
from diffinst.inference.pipeline import Pipeline, Size, input_size
from diffinst.inference.spread import joined, runs_of
from diffinst.io.out_of_memory import explained
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import padded_size
from diffinst.results.instances import Instances
from diffinst.structures import Encoded

Pixels = NDArray[np.uint8]
MOST_AT_ONCE = {"cuda": 32}
"""Images that go through the network together, by device; elsewhere `FEW_AT_ONCE`."""
FEW_AT_ONCE = 1  # on CPUs eight together take 10 to 20 % longer per image than one by one
PIXELS_AT_ONCE = 32 * 512**2
"""Of the network input, over all images that go through together."""
BOXES_AT_ONCE = 800
"""Of several runs on one image, on CPUs too: eight runs of 100 boxes take a third less time as one
batch, eight of 500 take 40 % more."""


class Runner:
    """Answers for one network; holds the noise of the last call, and what time is needed for what.

    Args:
        network: What predicts; set to eval mode.
        config: What options default to.
        launch: How heavy work is run.
        budget: Serves predictions that may take a given time.
    """

    def __init__(
        self,
        network: DiffusionInstNetwork,
        config: Config,
        launch: Launch = direct,
        budget: Budget | None = None,
    ) -> None:
        self.network, self.config, self.launch = network, config, launch
        self.budget = budget or Budget(clock_of(self.device))
        self._noise: tuple[object, Noise] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.network.image_mean.device

    @property
    def at_once(self) -> int:
        """Images that go through the network together at most."""
        return MOST_AT_ONCE.get(self.device.type, FEW_AT_ONCE)

    def at_once_of(self, padded: Size) -> int:
        """The same for images of a padded size, at least one."""
        return max(1, min(self.at_once, PIXELS_AT_ONCE // (padded[0] * padded[1])))

    def padded(self, size: Size) -> Size:
        """(height, width) of the network input for an image; images share a batch where equal."""
        return padded_size(input_size(size, self.config.preprocess))

    def pipeline(self, options: Options) -> Pipeline:
        """The pipeline under some options."""
        self.network.eval()
        return Pipeline(self.network, self.config, options, self.launch)

    def noise(self, seeds: Sequence[int], options: Options) -> Noise:
        """The draws of some seeds on the network's device; those of the last call are kept."""
        key = (tuple(seeds), options.steps, options.proposals, self.device)
        kept = self._noise  # another thread may put its own there meanwhile
        if kept is not None and kept[0] == key:
            return kept[1]
        diffusion = self.network.config.diffusion
        drawn = Noise.draw(seeds, options.steps, options.proposals, diffusion).to(self.device)
        self._noise = key, drawn
        return drawn

    def upload(self, images: Sequence[Pixels]) -> list[Tensor]:
        """RGB images (H, W, 3) as (3, H, W) uint8 tensors on the network's device."""
        return [torch.from_numpy(i).to(self.device).permute(2, 0, 1) for i in images]

    def advised(self, images: Sequence[Size], options: Options) -> AbstractContextManager[None]:
        """Running out of memory inside is answered with what to lower, and by how much."""
        exact = self.network.dtype == torch.float32
        size = self.padded(images[0])
        return explained("predicting", partial(advice, size, len(images), options, exact=exact))

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor], options: Options) -> Encoded:
        """(3, H, W) uint8 images of one padded size, on the network's device.

        Args:
            images: One size when padded.
            options: For advice alone.

        Raises:
            OutOfMemory: Says what to lower, and by how much.
        """
        with self.advised([(int(i.shape[1]), int(i.shape[2])) for i in images], options):
            pipeline = self.pipeline(options)
            return pipeline.encode(pipeline.prepare(images))

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[Tensor],
        options: Options,
        seeds: Sequence[int] | None = None,
        outputs: Sequence[Size] | None = None,
    ) -> list[Instances]:
        """The instances of (3, H, W) uint8 images of one padded size, on the network's device.

        Args:
            images: One size when padded.
            options: Of all.
            seeds: One for each image; None: that of the options.
            outputs: (height, width) that results are in the pixels of; None: the images'.

        Raises:
            OutOfMemory: Says what to lower, and by how much.
        """
        if options.seconds is not None:
            every = seeds or [options.seed] * len(images)
            asked = [options.model_copy(update={"seed": seed}) for seed in every]
            return [self._in_time(i, own) for i, own in zip(images, asked, strict=True)]
        sizes = [(int(i.shape[1]), int(i.shape[2])) for i in images]
        outputs, seeds = outputs or sizes, seeds or [options.seed] * len(images)
        with self.advised(sizes, options):
            pipeline = self.pipeline(options)
            encoded = pipeline.encode(pipeline.prepare(images))
            if options.noises > 1:
                return [
                    self.spread(encoded[i], outputs[i], options.model_copy(update={"seed": seed}))
                    for i, seed in enumerate(seeds)
                ]
            return pipeline.predict(encoded, self.noise(seeds, options), outputs)

    def _in_time(self, image: Tensor, options: Options) -> Instances:
        """One image, whose time begins now."""
        begin, output = self.budget.clock(), (int(image.shape[1]), int(image.shape[2]))
        encoded = self.encode([image], options)
        with self.advised([output], options):
            (found,) = Timed(self, encoded, options, output, begin).results(every=False)
        return found

    @torch.inference_mode()
    def spread(
        self, encoded: Encoded, output: Size, options: Options, start: Start | None = None
    ) -> Instances:
        """The instances of one encoded image after `options.noises` runs, each object once."""
        runs = [one for some in self._runs(encoded, output, options, start) for one in some]
        return joined(runs, options)

    @torch.inference_mode()
    def spreads(
        self, encoded: Encoded, output: Size, options: Options, start: Start | None = None
    ) -> Iterator[Instances]:
        """The same after a few of the runs, after some more, ..., after all."""
        runs: list[Instances] = []
        for some in self._runs(encoded, output, options, start):
            runs += some
            yield joined(runs, options)

    def _runs(
        self, encoded: Encoded, output: Size, options: Options, start: Start | None
    ) -> Iterator[list[Instances]]:
        # a run that is cut at the number kept would miss by rank what it has found
        most = max(options.max_detections, options.proposals)
        pipeline = self.pipeline(options.model_copy(update={"max_detections": most}))
        count = BOXES_AT_ONCE // options.proposals
        count = max(count, self.at_once_of(self.padded(output)))
        noise = self.noise([options.seed + k for k in range(options.noises)], options)
        return runs_of(pipeline, encoded, noise, output, at_once=count, start=start)
