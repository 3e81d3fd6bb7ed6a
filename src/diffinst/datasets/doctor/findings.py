"""Findings, and the notebook they are noted in while a dataset is examined."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from diffinst.datasets.problems import Place, Severity, catalogue

KEPT_PLACES = 20  # of each finding: enough to look at, and a report stays readable
_NOWHERE = Place()
SEVERITIES: tuple[Severity, ...] = ("breaks", "spoils", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing found in one split.

    Attributes:
        severity: "breaks" (training stops or cannot start), "spoils" (it runs and gets worse) or
            "note" (worth knowing).
        code: Short name, see `problems.catalogue`.
        split: Where; empty: in the dataset as a whole.
        what: What is wrong and what it leads to.
        count: How many things are concerned.
        unit: What is counted, singular.
        places: The first few.
        advice: What to do.
        repair: What `--fix` does about it; empty: nothing.
        left: How many of them `--fix` leaves as they are.
    """

    severity: Severity
    code: str
    split: str
    what: str
    count: int
    unit: str
    places: tuple[Place, ...]
    advice: str
    repair: str
    left: int

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "places": [asdict(place) for place in self.places]}


@dataclass
class Notebook:
    """Collects findings: one per code and split, with the first places it was seen at."""

    _pages: dict[tuple[str, str], _Page] = field(default_factory=dict)

    def add(self, code: str, split: str, place: Place, *, repaired: bool = True) -> None:
        """Note one more place; `repaired=False` where `--fix` cannot do its usual repair."""
        page = self._pages.setdefault((code, split), _Page())
        page.count += 1
        page.unrepaired += not repaired
        if len(page.places) < KEPT_PLACES:
            page.places.append(place)

    def of(self, split: str, but: Collection[str] = ()) -> Noting:
        """Where the reader of a split tells what is wrong, `but` what others tell."""
        return Noting(self, split, but)

    def name_images(self, split: str, names: Mapping[int, str]) -> None:
        """Complete the places that name an image by its id alone."""
        for (_, where), page in self._pages.items():
            if where == split:
                page.places = [
                    replace(place, file_name=place.file_name or names.get(place.image_id, ""))
                    if place.image_id is not None
                    else place
                    for place in page.places
                ]

    def tell(
        self,
        code: str,
        split: str,
        what: str,
        *,
        count: int,
        places: Sequence[Place] = (),
        advice: str = "",
    ) -> None:
        """Note something in words of its own, with all its places at once."""
        kept = list(places[:KEPT_PLACES])
        self._pages[code, split] = _Page(count, 0, kept, what, advice)

    def has(self, code: str, split: str) -> bool:
        """Whether it was noted of a split."""
        return (code, split) in self._pages

    def breaks(self, split: str) -> bool:
        """Whether something that stops training was noted of a split."""
        return any(
            catalogue()[code].severity == "breaks" for code, where in self._pages if where == split
        )

    def findings(self) -> tuple[Finding, ...]:
        """Worst first, then in the order of the catalogue."""
        order = list(catalogue())
        found = [self._finding(code, split, page) for (code, split), page in self._pages.items()]
        found.sort(key=lambda one: (SEVERITIES.index(one.severity), order.index(one.code)))
        return tuple(found)

    def _finding(self, code: str, split: str, page: _Page) -> Finding:
        kind = catalogue()[code]
        left = page.unrepaired if kind.repair else page.count
        repair = "" if left == page.count else kind.repair
        if repair and left:
            repair += f" ({left} of them stay as they are)"
        return Finding(
            severity=kind.severity,
            code=code,
            split=split,
            what=page.what or kind.what,
            count=page.count,
            unit=kind.unit,
            places=tuple(page.places),
            advice=page.advice or kind.advice,
            repair=repair,
            left=left,
        )


@dataclass(frozen=True)
class Noting:
    """Training's reader stops at the first problem; here all of them are noted, of one split."""

    notes: Notebook
    split: str
    but: Collection[str] = ()

    def note(
        self,
        code: str,
        place: Place = _NOWHERE,
        *,
        where: str = "",
        repaired: bool = True,
        **said: object,
    ) -> None:
        """Note one problem; see `problems.Problems`."""
        if code in self.but:
            return
        detail = catalogue()[code].detail.format_map({"where": os.path.basename(where), **said})
        self.notes.add(code, self.split, replace(place, detail=detail), repaired=repaired)


@dataclass
class _Page:
    count: int = 0
    unrepaired: int = 0
    places: list[Place] = field(default_factory=list)
    what: str = ""
    advice: str = ""
