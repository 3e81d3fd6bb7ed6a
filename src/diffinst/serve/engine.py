"""Answers requests with the models: steps as they come, objects that are pointed at.

All of it runs in the worker's thread; each `yield` is a place where a request can be given up.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch

from diffinst.config import ConfigError, OptionFields
from diffinst.inference.given import elsewhere
from diffinst.inference.image import EncodedImage
from diffinst.ops.boxes import iou
from diffinst.results.instances import Instances
from diffinst.serve.cache import Cache
from diffinst.serve.limits import Limits
from diffinst.serve.metrics import Metrics
from diffinst.serve.models import Models
from diffinst.serve.objects import SAME, instances_of, objects_of, overlaps
from diffinst.serve.queue import Worker
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import Sessions
from diffinst.serve.work import Object, Prompts, Work


@dataclass(frozen=True)
class Encoded:
    """The image is encoded; the steps come next."""

    seconds: float


@dataclass(frozen=True)
class Step:
    """What is found after a step."""

    step: int
    seconds: float
    objects: list[Object]


@dataclass(frozen=True)
class Done:
    """The work after a request: `answers` are the ids that prompts got, None where nothing is."""

    seconds: float
    steps: int
    proposals: int
    work: Work
    answers: list[int | None]
    note: str = ""


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


class Engine:
    """Models, the images they have encoded, and the thread that works.

    Args:
        models: That sessions choose from; no other is ever loaded.
        sessions: Where images and work lie.
        limits: What is allowed.
        metrics: Counts.
    """

    def __init__(
        self,
        models: Models,
        sessions: Sessions,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.models, self.sessions, self.limits, self.metrics = models, sessions, limits, metrics
        self.cache = Cache(limits.cache_bytes)
        self.worker = Worker(limits.waiting, metrics)

    def predict(
        self, session: str | None, image: str, model: str | None, options: OptionFields
    ) -> Generator[Encoded | Step | Done, None, None]:
        """What is found after each step; at the end it is kept, around what a person kept.

        Raises:
            Refused: Bad options, no such image, or kept objects of other classes.
        """
        since = time.perf_counter()
        name = self.models.name(session, model)
        encoded = self._encoded(session, image, name)
        yield Encoded(time.perf_counter() - since)
        before = self._of_model(session, self.sessions.work(session, image), name)
        names = self.models.get(session, name).class_names
        kept = [one for one in before.current if one.kept]
        given = instances_of(kept, encoded.size, names)
        many = (options.get("noises") or 1) > 1  # then runs are shown in place of steps
        found, step, note = Instances.empty(encoded.size, names), 0, ""
        try:
            items = encoded.runs(**options) if many else encoded.stream(**options)
            for step, found in enumerate(items, start=1):
                new = objects_of(elsewhere(given, found) if kept else found)
                self.metrics.count("steps")
                took = time.perf_counter() - since
                yield Step(step, took, [*kept, *new])
                if took > self.limits.seconds:
                    done = "" if many else f" after {step} steps,"
                    note = f"stopped{done} at the limit of {self.limits.seconds:g} s"
                    break
        except ConfigError as error:
            raise Refused(422, str(error)) from error

        def after(work: Work) -> Work:
            work = self._of_model(session, work, name)
            still = [one for one in work.current if one.kept]
            around = instances_of(still, encoded.size, names)
            numbered = work.numbered(objects_of(elsewhere(around, found) if still else found))
            ids = [*(one.id for one in still), *(one.id for one in numbered)]
            return replace(work.become(ids, numbered), model=name)

        work = self.sessions.change(session, image, after)
        meta = found.meta
        yield Done(
            time.perf_counter() - since,
            meta.steps if many and meta is not None else step,
            meta.proposals if meta is not None else 0,
            work,
            [],
            note or (meta.note if meta is not None else ""),
        )

    def prompt(
        self, session: str | None, image: str, model: str | None, asked: Pointed
    ) -> Generator[Encoded | Done, None, None]:
        """The objects that a person points at, which are kept from then on.

        Raises:
            Refused: Prompts that are none, no such image, or kept objects of other classes.
        """
        since = time.perf_counter()
        name = self.models.name(session, model)
        encoded = self._encoded(session, image, name)
        yield Encoded(time.perf_counter() - since)
        try:
            found = _pointed(encoded, asked)
        except ValueError as error:
            raise Refused(422, str(error)) from error
        answers = [
            replace(one, kept=True, prompts=prompts) if one.score > 0 else None
            for one, prompts in zip(objects_of(found), _each(asked), strict=True)
        ]
        ids: list[int | None] = []

        def after(work: Work) -> Work:
            work = self._of_model(session, work, name)
            if asked.replace is not None and asked.replace not in work.now:
                raise KeyError(f"there is no object {asked.replace} on this image")
            new = work.numbered([one for one in answers if one is not None])
            numbers = iter(one.id for one in new)
            ids.extend(None if one is None else next(numbers) for one in answers)
            if not new:
                return work
            known = overlaps(work.current, new).max(1, initial=0) >= SAME
            gone = {i for i, hit in zip(work.now, known, strict=True) if hit} | {asked.replace}
            state = [*(i for i in work.now if i not in gone), *(one.id for one in new)]
            return replace(work.become(state, new), model=name)

        work = self.sessions.change(session, image, after)
        self.metrics.add("prompts", len(answers))
        yield Done(time.perf_counter() - since, 1, 0, work, ids)

    def forget(self, session: str | None, image: str) -> None:
        """Drop what is encoded of an image."""
        self.cache.forget(lambda key: isinstance(key, tuple) and key[:2] == (session, image))

    def _encoded(self, session: str | None, image: str, name: str) -> EncodedImage:
        def make() -> EncodedImage:
            return self.models.get(session, name).encode(self.sessions.pixels(session, image))

        self.sessions.about(session, image)  # it may have been removed since
        return self.cache.get((session, image, name), make)

    def _of_model(self, session: str | None, work: Work, name: str) -> Work:
        """The work, if its labels are those of this model."""
        if work.model == name or not work.objects:
            return work
        before = self.models.classes(session, work.model)  # None: it was served once
        same = before == self.models.classes(session, name)
        if not same and any(one.kept for one in work.current):
            raise Refused(
                409, f"the objects that you kept here are of the classes of {work.model}, not of "
                f"{name}; go on with {work.model}, or delete them"
            )  # fmt: skip
        return work if same else work.emptied()


def _each(asked: Pointed) -> list[Prompts]:
    """The prompts of each object that is asked for."""
    if asked.together:
        box, (clicks,) = asked.boxes[0], asked.points
        return [{"box": box, "points": clicks, "exclude": asked.exclude}]
    boxes: list[Prompts] = [
        {"box": box, "points": [], "exclude": asked.exclude} for box in asked.boxes
    ]
    clicks_: list[Prompts] = [
        {"box": None, "points": clicks, "exclude": asked.exclude} for clicks in asked.points
    ]
    return boxes + clicks_


def _pointed(encoded: EncodedImage, asked: Pointed) -> Instances:
    """One instance for each prompt, as `EncodedImage.prompt` gives them."""
    if not asked.together:
        return encoded.prompt(asked.boxes or None, asked.points or None, asked.exclude or None)
    # Of the answers to the box and to the clicks: what holds most clicks, then what fits the box.
    found = Instances.cat(
        encoded.prompt_candidates(asked.boxes, asked.points, asked.exclude or None)
    )
    clicks = asked.points[0]
    held = [_holds(found, i, clicks) for i in range(len(found))]
    fits = iou(found.tight().boxes[:, None], _around(asked.boxes[0], clicks)[None]).flatten()
    best = max(range(len(found)), key=lambda i: (bool(found.scores[i]), held[i], float(fits[i])))
    return found[best]


def _holds(found: Instances, i: int, clicks: Sequence[Sequence[float]]) -> int:
    """How many clicks lie on the mask of an instance."""
    y0, x0, height, width = found.mask_crops.windows[i].tolist()
    patch = found.mask_crops.patches[i]
    at = [(int(y) - y0, int(x) - x0) for x, y in clicks]
    return sum(0 <= y < height and 0 <= x < width and bool(patch[y, x]) for y, x in at)


def _around(box: Sequence[float], clicks: Sequence[Sequence[float]]) -> torch.Tensor:
    """(4,) the box, grown to hold the clicks."""
    xs, ys = [x for x, _ in clicks], [y for _, y in clicks]
    x0, y0, x1, y1 = box
    return torch.tensor([min(x0, *xs), min(y0, *ys), max(x1, *xs), max(y1, *ys)])
