"""One image, encoded once, asked as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields, Options, PromptFields
from diffinst.diffusion.start import Start
from diffinst.inference.answers import Answers, answers, candidates, chosen
from diffinst.inference.budget import Timed
from diffinst.inference.given import around, check_given
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.inference.prompts import Numbers, Points, prompts_of
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

    def predict(
        self,
        *,
        start: Start | None = None,
        given: Instances | None = None,
        **options: Unpack[OptionFields],
    ) -> Instances:
        """What `DiffusionInst.predict` gives for the image.

        Args:
            start: Boxes to begin with, in pixels of the original image; None: noise alone.
            given: Objects that a person kept or corrected: they come first, as they are, and what
                is found is found around them.
            **options: See `OptionFields`.

        Raises:
            ConfigError: A value out of range; names it.
            ValueError: A start that does not fit, or objects of another image; says how.
        """
        if given is not None:
            check_given(given, self.size, self.runner.network.config.names)
        found = self.answer(start, Options.of(self.runner.config, **options))
        return found if given is None else self._remembered(around(given, found))

    def answer(
        self, start: Start | None, options: Options, since: float | None = None
    ) -> Instances:
        """The same for options that are checked.

        Args:
            start: As in `predict`.
            options: All of them.
            since: When the time of `options.seconds` began to run, by the clock of
                `runner.budget`; None: now.
        """
        (found,) = self._results(start, options, since, every=False)
        return found

    @torch.inference_mode()
    def prompt(
        self,
        boxes: Numbers | None = None,
        points: Points | None = None,
        exclude: Sequence[Sequence[float]] | None = None,
        **options: Unpack[PromptFields],
    ) -> Instances:
        """One instance for each prompt, in their order, boxes first.

        Args:
            boxes: (n, 4) xyxy pixels of the image, each about around an object.
            points: [[x, y], ...] one click on each object; or a list of such lists, several clicks
                on each.
            exclude: Clicks (x, y) and boxes (x0, y0, x1, y1) on what is not meant, for all prompts.
            **options: See `PromptFields`.

        Returns:
            As many instances as prompts. The score is what `predict` would give; 0 where nothing
            was found but what another prompt means or what is excluded, or only an empty mask.

        Raises:
            ValueError: A prompt that is none, or outside the image; says which.
            ConfigError: A value out of range, or an option that prompts do not have; names it.

        Example:
            >>> from diffinst import DiffusionInst
            >>> model = DiffusionInst.from_preset("tiny")
            >>> image = model.encode(np.zeros((48, 64, 3), np.uint8))
            >>> len(image.prompt(boxes=[[10, 10, 30, 40], [35, 5, 60, 20]], points=[[8, 40]]))
            3
        """
        return self._remembered(chosen(self._answers(boxes, points, exclude, options)))

    @torch.inference_mode()
    def prompt_candidates(
        self,
        boxes: Numbers | None = None,
        points: Points | None = None,
        exclude: Sequence[Sequence[float]] | None = None,
        *,
        most: int = 3,
        **options: Unpack[PromptFields],
    ) -> list[Instances]:
        """Up to three answers to each prompt, best first, for where one click can mean several.

        Args:
            boxes: As in `prompt`, like all but `most`.
            points: As there.
            exclude: As there.
            most: Answers to a prompt at most; those of nearly one mask count once.
            **options: See `PromptFields`.

        Raises:
            ValueError: As there, or `most` below 1.
            ConfigError: As there.
        """
        if not isinstance(most, SupportsIndex) or most < 1:
            raise ValueError(f"most is {most!r}; give at least 1, a whole number")
        given = self._answers(boxes, points, exclude, options)
        return [self._remembered(found) for found in candidates(given, most)]

    def _answers(
        self,
        boxes: Numbers | None,
        points: Points | None,
        exclude: Sequence[Sequence[float]] | None,
        fields: PromptFields,
    ) -> Answers:
        allowed = PromptFields.__annotations__
        odd = [name for name in fields if name not in allowed]
        if odd:
            raise ConfigError(
                f"prompt: {', '.join(odd)}: no option of prompts, which take one step each; "
                f"allowed are {', '.join(allowed)}"
            )
        options = Options.of(self.runner.config, **fields)
        prompts, excluded = prompts_of(boxes, points, exclude, self.size)
        with self.runner.advised([self.size], options):
            return answers(self.runner, self.encoded, self.size, prompts, excluded, options)

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

    def runs(self, **options: Unpack[OptionFields]) -> Iterator[Instances]:
        """What `noises` runs agree on, after a few of them, after some more, ..., after all.

        Arguments as in `predict`, which gives the last item.

        Raises:
            ConfigError: A value out of range; names it.
        """
        return self._runs(Options.of(self.runner.config, **options))

    @torch.inference_mode()
    def _runs(self, options: Options) -> Iterator[Instances]:
        with self.runner.advised([self.size], options):
            for found in self.runner.spreads(self.encoded, self.size, options):
                yield self._remembered(found)

    @torch.inference_mode()
    def _results(
        self, start: Start | None, options: Options, since: float | None = None, *, every: bool
    ) -> Iterator[Instances]:
        """After each step, or after the last one alone."""
        starts = _starts(start)
        if options.noises > 1:
            with self.runner.advised([self.size], options):
                found = self.runner.spread(self.encoded, self.size, options, start)
            yield replace(found, image=self.image, path=self.path)
            return
        pipeline = self.runner.pipeline(options)
        with self.runner.advised([self.size], options):
            if options.seconds is not None:
                since = self.runner.budget.clock() if since is None else since
                timed = Timed(self.runner, self.encoded, options, self.size, since, starts)
                for found in timed.results(every=every):
                    yield replace(found, image=self.image, path=self.path)
                return
            for step in self._steps(pipeline, start):
                if every:
                    yield self._shown(pipeline, step)
            if not every:
                yield self._shown(pipeline, step)

    def trace(
        self, *, start: Start | None = None, **options: Unpack[OptionFields]
    ) -> Iterator[tuple[list[TracePoint], Instances]]:
        """For each step everything that the model believed in it, and the result so far.

        Arguments as in `predict`; no `seconds`.
        """
        asked = _one_run(Options.of(self.runner.config, **options))
        if asked.seconds is not None:
            raise ValueError("a trace looks at every step, however long it takes; omit seconds")
        return self._traced(start, asked)

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
        return pipeline.run(self.encoded, noise, _starts(start), [self.size])

    def _shown(self, pipeline: Pipeline, step: Step) -> Instances:
        return self._remembered(pipeline.result(step, self.encoded, 0, self.size))

    def _remembered(self, found: Instances) -> Instances:
        return replace(found, image=self.image, path=self.path)


def encode_each(
    runner: Runner, images: Sequence[NDArray[np.uint8]], paths: Sequence[Path | None]
) -> list[EncodedImage]:
    """Images through the encoder, those of one padded size together.

    Args:
        runner: Says how many go together.
        images: uint8 (height, width, 3) RGB.
        paths: The file of each; None: it came otherwise.

    Raises:
        OutOfMemory: Says what to lower, and by how much.
    """
    found: dict[int, Encoded] = {}
    by_size: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(runner.padded((image.shape[0], image.shape[1])), []).append(place)
    for size, places in by_size.items():
        most = runner.at_once_of(size)
        for some in (places[i : i + most] for i in range(0, len(places), most)):
            batch = runner.encode(
                runner.upload([images[place] for place in some]), Options.of(runner.config)
            )
            for i, place in enumerate(some):
                # a copy: a view would keep the whole batch in memory
                found[place] = batch if len(some) == 1 else Encoded.cat([batch[i]])
    return [EncodedImage(runner, found[i], images[i], paths[i]) for i in range(len(images))]


def _starts(start: Start | None) -> list[Start]:
    if not isinstance(start, Start | None):
        raise ValueError(f"start: a {type(start).__name__}; give Start(boxes, time)")
    return [] if start is None else [start]


def _one_run(options: Options) -> Options:
    """Options of what shows a run step by step; refuses several runs."""
    if options.noises > 1:
        raise ConfigError(
            f"noises is {options.noises}, but steps are shown of one run; omit noises, or ask "
            "predict"
        )
    return options
