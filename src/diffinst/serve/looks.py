"""How a model looks at an image: whole, or at a large one, which it would shrink, in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from diffinst.config import ConfigError, OptionFields
from diffinst.inference.image import EncodedImage
from diffinst.inference.meant import meant
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.prompts import prompts_of
from diffinst.io.images import Pixels
from diffinst.results.instances import Instances
from diffinst.serve.window import Window
from diffinst.serve.work import Prompts

LOOKS = 12  # results on the way through the tiles, at most: each is sent whole


@dataclass(frozen=True)
class Pointed:
    """What a person points at on an image.

    Attributes:
        boxes: (x0, y0, x1, y1) each.
        points: Clicks (x, y) of each further object.
        exclude: Clicks and boxes on what is not meant.
        together: The one box and the clicks are of one object.
        replace: The object that this corrects.
    """

    boxes: list[list[float]]
    points: list[list[list[float]]]
    exclude: list[list[float]]
    together: bool
    replace: int | None

    def each(self) -> list[Prompts]:
        """The prompts of each object that is asked for, boxes first."""
        if self.together:
            return [{"box": self.boxes[0], "points": self.points[0], "exclude": self.exclude}]
        by_box: list[Prompts] = [
            {"box": box, "points": [], "exclude": self.exclude} for box in self.boxes
        ]
        by_clicks: list[Prompts] = [
            {"box": None, "points": clicks, "exclude": self.exclude} for clicks in self.points
        ]
        return by_box + by_clicks


class Stopped(Exception):
    """Nobody waits for the rest, or it would take too long; what there was is handed on before."""


class Look(Protocol):
    """What the engine asks of an image."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""

    def results(self, options: OptionFields, go_on: Callable[[], bool]) -> Iterator[Instances]:
        """All that is found so far, again and again; the last item is the result.

        Args:
            options: Of the prediction.
            go_on: Asked from time to time.

        Raises:
            ConfigError: A value out of range; names it.
            Stopped: `go_on` said no.
        """

    def pointed(self, asked: Pointed, go_on: Callable[[], bool]) -> Instances:
        """One instance for each object that is asked for; score 0 where nothing is.

        Args:
            asked: The objects.
            go_on: As in `results`.

        Raises:
            Stopped: As there.
            ValueError: A prompt that is none, or outside the image; says which.
        """


@dataclass(frozen=True)
class Whole:
    """An image that a model takes as it is."""

    image: EncodedImage

    @property
    def size(self) -> tuple[int, int]:
        """See `Look`."""
        return self.image.size

    def results(self, options: OptionFields, go_on: Callable[[], bool]) -> Iterator[Instances]:
        """After each step; of several runs after some of them."""
        items = self.image.runs(**options) if _runs(options) > 1 else self.image.stream(**options)
        for found in items:
            yield found
            if not go_on():
                raise Stopped

    def pointed(self, asked: Pointed, go_on: Callable[[], bool]) -> Instances:
        """As `EncodedImage.prompt` gives them."""
        if asked.together:
            return meant(self.image, asked.boxes[0], asked.points[0], asked.exclude)
        return self.image.prompt(asked.boxes or None, asked.points or None, asked.exclude or None)


@dataclass(frozen=True)
class Large:
    """An image that is found in tiles, and pointed at in a window around each prompt.

    Attributes:
        model: That looks.
        size: (height, width) of the image.
        pixels: Gives the image.
        encoded: Gives a part of it, encoded.
    """

    model: DiffusionInst
    size: tuple[int, int]
    pixels: Callable[[], Pixels]
    encoded: Callable[[Window], EncodedImage]

    def results(self, options: OptionFields, go_on: Callable[[], bool]) -> Iterator[Instances]:
        """After some of the tiles."""
        if _runs(options) > 1:
            raise ConfigError(
                f"noises is {_runs(options)}, but a large image is looked at in tiles, once each; "
                "omit noises"
            )
        parts = [Instances.empty(self.size, self.model.class_names)]
        looks = 0

        def watch(done: int, total: int) -> None:
            if not go_on():
                raise Stopped

        try:
            with self.model.predict_tiles(self.pixels(), progress=watch, **options) as tiles:
                for part in tiles:
                    parts.append(part)
                    done = tiles.counts.tiles + tiles.counts.skipped
                    if done * LOOKS // len(tiles.plan.grid) > looks:
                        looks = done * LOOKS // len(tiles.plan.grid)
                        parts = [Instances.cat(parts)]
                        yield parts[0]
        except Stopped:
            yield Instances.cat(parts)
            raise
        yield Instances.cat(parts)

    def pointed(self, asked: Pointed, go_on: Callable[[], bool]) -> Instances:
        """Each is looked at closely; what is excluded elsewhere does not matter to it."""
        prompts_of(asked.boxes or None, asked.points or None, asked.exclude or None, self.size)
        parts = []
        for one in asked.each():
            if not go_on():
                raise Stopped
            box, clicks = one["box"], one["points"]
            places = clicks if box is None else [box[:2], box[2:], *clicks]
            window = Window.around([x for x, _ in places], [y for _, y in places], self.size)
            found = meant(
                self.encoded(window),
                None if box is None else window.inside(box),
                [window.inside(click) for click in clicks],
                [window.inside(place) for place in one["exclude"] if window.holds(place)],
            )
            parts.append(window.outside(found, self.size))
        return Instances.cat(parts)


def looks_in_parts(model: DiffusionInst) -> bool:
    """Whether a model is to see large images in parts: not one of photos, which sees each whole."""
    return model.config.preprocess.short_side is None


def _runs(options: OptionFields) -> int:
    return options.get("noises") or 1
