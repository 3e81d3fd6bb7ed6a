"""Answers requests with the models: steps as they come, objects that are pointed at.

All of it runs in the worker's thread; each `yield` is a place where a request can be given up.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from diffinst.config import ConfigError, OptionFields, Options
from diffinst.inference.given import elsewhere
from diffinst.inference.image import EncodedImage
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import Pixels
from diffinst.io.out_of_memory import OutOfMemory
from diffinst.results.crops import rle_iou
from diffinst.results.instances import Instances
from diffinst.serve.cache import Cache, Key
from diffinst.serve.limits import Limits
from diffinst.serve.looks import Large, Look, Pointed, Stopped, Whole, looks_in_parts
from diffinst.serve.metrics import Metrics
from diffinst.serve.models import Models
from diffinst.serve.objects import SAME, instances_of, objects_of
from diffinst.serve.queue import Worker
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About, Sessions
from diffinst.serve.tiles import is_large, times_whole
from diffinst.serve.window import Window
from diffinst.serve.work import Object, Work


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
    """The work after a request, and the classes of its labels.

    `answers` are the ids that prompts got, None where nothing is.
    """

    seconds: float
    steps: int
    proposals: int
    work: Work
    classes: tuple[str, ...] | None
    answers: list[int | None]
    note: str = ""


class Engine:
    """Models, the images they have encoded, and the thread that works.

    Args:
        models: That sessions choose from; no other is ever loaded.
        sessions: Where images and work lie.
        limits: What is allowed.
        metrics: Counts.
        cache: Images that are encoded.
    """

    def __init__(
        self,
        models: Models,
        sessions: Sessions,
        limits: Limits,
        metrics: Metrics,
        cache: Cache,
    ) -> None:
        self.models, self.sessions, self.limits, self.metrics = models, sessions, limits, metrics
        self.cache = cache
        self.worker = Worker(limits.waiting, metrics)

    def predict(
        self,
        session: str | None,
        image: str,
        model: str | None,
        options: OptionFields,
        left: Callable[[], bool] = lambda: False,
    ) -> Generator[Encoded | Step | Done, None, None]:
        """What is found after each step; at the end it is kept, around what a person kept.

        Args:
            session: Its id.
            image: Its id.
            model: Its name; None: the first.
            options: Of the prediction.
            left: Whether nobody waits for it any more.

        Raises:
            Refused: Bad options, no such image, or kept objects of other classes.
        """
        since = time.perf_counter()
        name = self.models.name(session, model)
        look = self._look(session, image, name)
        yield Encoded(_since(since))
        before = self._of_model(session, self.sessions.work(session, image), name)
        chosen = self.models.get(session, name)
        kept = [one for one in before.current if one.kept]
        given = instances_of(kept, look.size, chosen.class_names)
        most = self._most_seconds(session, image)
        found, note = Instances.empty(look.size, chosen.class_names), ""
        try:
            results = look.results(options, lambda: not left() and _since(since) < most)
            for step, found in enumerate(results, start=1):
                new = objects_of(elsewhere(given, found) if kept else found)
                self.metrics.count("steps")
                yield Step(step, _since(since), [*kept, *new])
        except Stopped:
            if left():
                return
            note = f"stopped at the limit of {most:g} s"
        except ConfigError as error:
            raise Refused(422, str(error)) from error

        def after(work: Work) -> Work:
            work = self._of_model(session, work, name)
            still = [one for one in work.current if one.kept]
            around = instances_of(still, look.size, chosen.class_names)
            numbered = work.numbered(objects_of(elsewhere(around, found) if still else found))
            ids = [*(one.id for one in still), *(one.id for one in numbered)]
            return replace(work.become(ids, numbered), model=name)

        work = self.sessions.change(session, image, after)
        done = found.meta or Options.of(chosen.config, **options)  # tiles have no meta
        note = note or (found.meta.note if found.meta is not None else "")
        names = chosen.class_names
        yield Done(_since(since), done.steps, done.proposals, work, names, [], note)

    def prompt(
        self,
        session: str | None,
        image: str,
        model: str | None,
        asked: Pointed,
        left: Callable[[], bool] = lambda: False,
    ) -> Generator[Encoded | Done, None, None]:
        """The objects that a person points at, which are kept from then on.

        Args:
            session: As in `predict`, like the rest.
            image: As there.
            model: As there.
            asked: What is pointed at.
            left: As there.

        Raises:
            Refused: Prompts that are none or take too long, no such image, or kept objects of other
                classes.
        """
        since = time.perf_counter()
        name = self.models.name(session, model)
        look = self._look(session, image, name)
        yield Encoded(_since(since))
        most = self._most_seconds(session, image)
        try:
            found = look.pointed(asked, lambda: not left() and _since(since) < most)
        except Stopped as error:
            if left():
                return
            raise Refused(
                422, f"these prompts take longer than {most:g} s, and nothing was changed; send "
                "fewer in one request"
            ) from error  # fmt: skip
        except ValueError as error:
            raise Refused(422, str(error)) from error
        answers = [
            replace(one, kept=True, prompts=prompts) if one.score > 0 else None
            for one, prompts in zip(objects_of(found), asked.each(), strict=True)
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
            overlaps = rle_iou([one.rle for one in work.current], [one.rle for one in new])
            known = overlaps.max(1, initial=0) >= SAME
            gone = {i for i, hit in zip(work.now, known, strict=True) if hit} | {asked.replace}
            state = [*(i for i in work.now if i not in gone), *(one.id for one in new)]
            return replace(work.become(state, new), model=name)

        work = self.sessions.change(session, image, after)
        self.metrics.add("prompts", len(answers))
        yield Done(_since(since), 1, 0, work, self.models.classes(session, work.model), ids)

    def forget(self, session: str | None, image: str) -> None:
        """Drop what is encoded of an image."""
        self.cache.forget(lambda key, _: key[:2] == (session, image))

    def _most_seconds(self, session: str | None, image: str) -> float:
        return self.limits.seconds * times_whole(self.sessions.about(session, image))

    def _look(self, session: str | None, image: str, name: str) -> Look:
        about = self.sessions.about(session, image)  # it may have been removed since
        model = self.models.get(session, name)

        @functools.cache
        def pixels() -> Pixels:
            return self.sessions.pixels(session, image)

        def part(window: Window) -> EncodedImage:
            key = Key(session, image, name, window)
            return self.cache.get(key, lambda: model.encode(window.of(pixels())))

        if is_large(about) and looks_in_parts(model):
            return Large(model, about.size, pixels, part)
        key = Key(session, image, name)
        return Whole(self.cache.get(key, lambda: self._encoded(key, model, about)))

    def _encoded(self, key: Key, model: DiffusionInst, about: About) -> EncodedImage:
        """An image, encoded; together with those that waiting requests will ask for."""
        own, others = self.sessions.pixels(key.session, key.image), self._alike(key, model, about)
        if others:
            with contextlib.suppress(OutOfMemory):  # the image alone may fit
                first, *rest = model.encode([own, *others.values()])
                self.metrics.add("encoded_together", len(rest))
                for other, encoded in zip(others, rest, strict=True):
                    self.cache.put(other, encoded)
                return first
        return model.encode(own)

    def _alike(self, key: Key, model: DiffusionInst, about: About) -> dict[Key, Pixels]:
        """What waits for the same model and shares a batch with an image."""
        padded, most = model.batch_of(about.size)
        alike: dict[Key, Pixels] = {}
        for other in self.worker.needed() if most > 1 else ():
            given = other.model in self.models.given or other.session == key.session
            new = other != key and other not in alike and other not in self.cache
            if len(alike) < most - 1 and given and new and other.model == key.model:
                # gone or damaged, of which Pillow and JSON have errors of all these kinds: its own
                # request says so
                with contextlib.suppress(Refused, OSError, SyntaxError, ValueError):
                    its = self.sessions.about(other.session, other.image)
                    whole = not (is_large(its) and looks_in_parts(model))
                    if whole and model.batch_of(its.size)[0] == padded:
                        alike[other] = self.sessions.pixels(other.session, other.image)
        return alike

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


def _since(begin: float) -> float:
    return time.perf_counter() - begin
