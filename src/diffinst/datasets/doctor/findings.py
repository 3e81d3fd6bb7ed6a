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
    """Collects findings: one per code and split, with the first places it was seen at.

    Readers tell it what is wrong (it is a `problems.Problems`), and they go on.

    Args:
        split: What it is about; empty: the dataset as a whole.
        but: Codes to pass over, which others tell.
    """

    split: str = ""
    but: Collection[str] = ()
    _pages: dict[tuple[str, str], _Page] = field(default_factory=dict)

    def of(self, split: str, but: Collection[str] = ()) -> Notebook:
        """The part of it that is about a split."""
        return Notebook(split, but, self._pages)

    def note(
        self,
        code: str,
        place: Place = _NOWHERE,
        *,
        where: str = "",
        repaired: bool = True,
        **said: object,
    ) -> None:
        """Note one more place; see `problems.Problems`."""
        if code in self.but:
            return
        page = self._pages.setdefault((code, self.split), _Page())
        page.count += 1
        page.unrepaired += not repaired
        if len(page.places) < KEPT_PLACES:
            sentence = catalogue()[code].detail
            detail = sentence.format_map({"where": os.path.basename(where), **said})
            page.places.append(replace(place, detail=detail) if sentence else place)

    def tell(self, code: str, *, count: int, places: Sequence[Place] = (), **said: object) -> None:
        """Note something with all its places at once, and fields of its what and advice."""
        self._pages[code, self.split] = _Page(count, 0, list(places[:KEPT_PLACES]), said)

    def name_images(self, names: Mapping[int | None, str]) -> None:
        """Complete the places that name an image by its id alone."""
        for (_, split), page in self._pages.items():
            if split == self.split:
                page.places = [
                    replace(place, file_name=place.file_name or names.get(place.image_id, ""))
                    for place in page.places
                ]

    def has(self, code: str) -> bool:
        """Whether it was noted."""
        return (code, self.split) in self._pages

    def breaks(self) -> bool:
        """Whether something that stops training was noted."""
        codes = (code for code, split in self._pages if split == self.split)
        return any(catalogue()[code].severity == "breaks" for code in codes)

    def findings(self) -> tuple[Finding, ...]:
        """Of all splits, worst first, then in the order of the catalogue."""
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
            what=kind.what.format_map(page.said) if page.said else kind.what,
            count=page.count,
            unit=kind.unit,
            places=tuple(page.places),
            advice=kind.advice.format_map(page.said) if page.said else kind.advice,
            repair=repair,
            left=left,
        )


@dataclass
class _Page:
    count: int = 0
    unrepaired: int = 0
    places: list[Place] = field(default_factory=list)
    said: Mapping[str, object] = field(default_factory=dict)
