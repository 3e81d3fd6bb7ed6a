"""One image, encoded once, asked as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields, Options
from diffinst.diffusion.start import Start
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.inference.runner import Runner
from diffinst.inference.trace import TracePoint, trace_points
from diffinst.results.instances import Instances
from diffinst.structures import Encoded


class EncodedImage:
    """An image that has gone through the encoder; made by `DiffusionInst.encode`.

    Attributes:
        encoded: What the network keeps of it.
        image: uint8 (height, width, 3) RGB.
        path: The file it was read from; None: it came otherwise.
    """

    def __init__(
        self, runner: Runner, encoded: Encoded, image: NDArray[np.uint8], path: Path | None
    ) -> None:
        self.runner, self.encoded, self.image, self.path = runner, encoded, image, path

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original image."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    def __repr__(self) -> str:
        height, width = self.size
        return f"EncodedImage({height}x{width}{f', {self.path}' if self.path else ''})"

    def predict(self, *, start: Start | None = None, **options: Unpack[OptionFields]) -> Instances:
        """What `DiffusionInst.predict` gives for the image.

        Args:
            start: Boxes to begin with, in pixels of the original image; None: noise alone.
            **options: See `OptionFields`.

        Raises:
            ConfigError: A value out of range; names it.
            ValueError: A start that does not fit; says how.
        """
        (found,) = self._results(start, Options.of(self.runner.config, **options), every=False)
        return found

    def stream(
        self, *, start: Start | None = None, **options: Unpack[OptionFields]
    ) -> Iterator[Instances]:
        """The instances after each step, the best so far; stop at any time.

        Arguments as in `predict`, which gives the last item.

        Raises:
            ConfigError: A value out of range; names it.
            ValueError: A start that does not fit; says how.
        """
        asked = _one_run(Options.of(self.runner.config, **options))
        return self._results(start, asked, every=True)

    @torch.inference_mode()
    def _results(
        self, start: Start | None, options: Options, *, every: bool
    ) -> Iterator[Instances]:
        """After each step, or after the last one alone."""
        if options.noises > 1:
            with self.runner.advised([self.size], options):
                found = self.runner.spread(self.encoded, self.size, options, start)
            yield replace(found, image=self.image, path=self.path)
            return
        pipeline = self.runner.pipeline(options)
        with self.runner.advised([self.size], options):
            for step in self._steps(pipeline, start):
                if every:
                    yield self._shown(pipeline, step)
            if not every:
                yield self._shown(pipeline, step)

    def trace(
        self, *, start: Start | None = None, **options: Unpack[OptionFields]
    ) -> Iterator[tuple[list[TracePoint], Instances]]:
        """For each step everything that the model believed in it, and the result so far.

        Arguments as in `predict`.
        """
        return self._traced(start, _one_run(Options.of(self.runner.config, **options)))

    @torch.inference_mode()
    def _traced(
        self, start: Start | None, options: Options
    ) -> Iterator[tuple[list[TracePoint], Instances]]:
        pipeline = self.runner.pipeline(options)
        with self.runner.advised([self.size], options):
            for step in self._steps(pipeline, start):
                points = trace_points(pipeline, step, self.encoded, self.size)
                yield points, self._shown(pipeline, step)

    def _steps(self, pipeline: Pipeline, start: Start | None) -> Iterator[Step]:
        noise = self.runner.noise([pipeline.options.seed], pipeline.options)
        starts = [] if start is None else [start]
        return pipeline.run(self.encoded, noise, starts, [self.size])

    def _shown(self, pipeline: Pipeline, step: Step) -> Instances:
        found = pipeline.instances(step.candidates, self.encoded, 0, self.size)
        return replace(found, image=self.image, path=self.path)


def _one_run(options: Options) -> Options:
    """Options of what shows a run step by step; refuses several runs."""
    if options.noises > 1:
        raise ConfigError(
            f"noises is {options.noises}, but steps are shown of one run; omit noises, or ask "
            "predict"
        )
    return options
