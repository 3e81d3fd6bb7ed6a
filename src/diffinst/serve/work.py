"""The objects of one image as a person works on them: kept, deleted, relabelled, undone.

Objects never change: a corrected one is a new one. So a state is a list of ids, and the past is a
list of states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypedDict

import msgspec

from diffinst.results.crops import CompressedRLE

MOST_STATES = 100  # that can be undone


class Prompts(TypedDict):
    """What a person drew for one object; pixels of the image."""

    box: list[float] | None
    points: list[list[float]]
    exclude: list[list[float]]


@dataclass(frozen=True)
class Object:
    """One object of an image.

    Attributes:
        id: Positive, of this image alone, never given twice.
        label: 0-based position in the model's classes.
        score: 0 to 1.
        box: x0, y0, x1, y1 as predicted.
        area: Pixels of the mask.
        rle: The mask.
        kept: A person pointed at it or corrected it; predictions leave it as it is.
        prompts: What it answers; None: it was found.
        stability: Fraction of several runs that found it; None: of one run.
    """

    id: int
    label: int
    score: float
    box: list[float]
    area: int
    rle: CompressedRLE
    kept: bool = False
    prompts: Prompts | None = None
    stability: float | None = None


@dataclass(frozen=True)
class Work:
    """All states of one image's objects.

    Attributes:
        objects: By id, those of the states below.
        now: Ids in their order.
        past: Earlier states, the last one last.
        future: States that were undone, the next one last.
        revision: Grows with each change.
        accepted: A person has said that it is done.
        least: Score from which on found objects were shown when it was accepted.
        model: Whose classes the labels are.
    """

    objects: dict[int, Object] = field(default_factory=dict)
    now: tuple[int, ...] = ()
    past: tuple[tuple[int, ...], ...] = ()
    future: tuple[tuple[int, ...], ...] = ()
    revision: int = 0
    accepted: bool = False
    least: float = 0.0
    model: str = ""
    next_id: int = 1

    @property
    def current(self) -> list[Object]:
        """The objects of the present state."""
        return [self.objects[i] for i in self.now]

    def shown(self, least: float) -> list[Object]:
        """Of the present ones those that a person kept, and those that score at least so much."""
        return [one for one in self.current if one.kept or one.score >= least]

    def become(self, state: Sequence[int], new: Sequence[Object] = ()) -> Work:
        """The next state; what was undone before is gone.

        Args:
            state: Ids in their order.
            new: Objects among them that were not there.
        """
        past = (*self.past, self.now)[-MOST_STATES:]
        objects = self.objects | {one.id: one for one in new}
        used = {i for ids in (*past, state) for i in ids}
        return replace(
            self,
            objects={i: one for i, one in objects.items() if i in used},
            now=tuple(state),
            past=past,
            future=(),
            revision=self.revision + 1,
            next_id=max([self.next_id, *(one.id + 1 for one in new)]),
            accepted=False,
        )

    def numbered(self, new: Sequence[Object]) -> list[Object]:
        """The same objects with ids that are free."""
        return [replace(one, id=self.next_id + i) for i, one in enumerate(new)]

    def without(self, ids: Sequence[int]) -> Work:
        """These objects deleted.

        Raises:
            KeyError: One is not there.
        """
        self._check(ids)
        return self.become([i for i in self.now if i not in ids])

    def relabelled(self, ids: Sequence[int], label: int) -> Work:
        """These objects of another class, kept from now on.

        Raises:
            KeyError: One is not there.
        """
        return self._changed(ids, lambda one: replace(one, label=label, kept=True))

    def kept(self, ids: Sequence[int]) -> Work:
        """These objects kept by predictions.

        Raises:
            KeyError: One is not there.
        """
        return self._changed(ids, lambda one: replace(one, kept=True))

    def undone(self) -> Work:
        """The state before, not accepted; the same where there is none."""
        if not self.past:
            return self
        return replace(
            self, now=self.past[-1], past=self.past[:-1], future=(*self.future, self.now),
            revision=self.revision + 1, accepted=False,
        )  # fmt: skip

    def redone(self) -> Work:
        """The state that was undone last, not accepted; the same where there is none."""
        if not self.future:
            return self
        return replace(
            self, now=self.future[-1], past=(*self.past, self.now), future=self.future[:-1],
            revision=self.revision + 1, accepted=False,
        )  # fmt: skip

    def emptied(self) -> Work:
        """No objects, and none to go back to: labels of earlier states are of other classes."""
        return replace(self.become(()), objects={}, past=())

    def approved(self, least: float) -> Work:
        """Accepted, with the score from which on found objects were shown."""
        return replace(self, accepted=True, least=least, revision=self.revision + 1)

    def _check(self, ids: Sequence[int]) -> None:
        for i in ids:
            if i not in self.now:
                raise KeyError(f"there is no object {i} on this image")

    def _changed(self, ids: Sequence[int], change: Callable[[Object], Object]) -> Work:
        self._check(ids)
        new = self.numbered([change(self.objects[i]) for i in ids])
        place = dict(zip(ids, (one.id for one in new), strict=True))
        return self.become([place.get(i, i) for i in self.now], new)

    def to_json(self) -> dict[str, Any]:
        """For a file; `from_json` reads it."""
        values = asdict(self)
        values["objects"] = [asdict(one) for one in self.objects.values()]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Work:
        """What `to_json` gave.

        Raises:
            ValueError: It is something else; so are KeyError and TypeError.
        """
        return msgspec.convert(
            {**values, "objects": {one["id"]: one for one in values["objects"]}}, cls
        )
