"""What can be wrong with a dataset, and the port through which readers tell it.

There is one reader for each format. It tells what is wrong by a code of the catalogue and goes on
with what can be told nevertheless. Whether it gets so far is up to the other side of the port:
training refuses the first problem (`Refusal`), the doctor notes all of them (`doctor.findings`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import yaml

from diffinst.io.one_line import one_line

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)

Severity = Literal["breaks", "spoils", "note"]
_SHOWN = 5


class DatasetError(ValueError):
    """A dataset cannot be used as it is; the message names file, entry, value and what to do.

    Args:
        message: Made one printable line, whatever it quotes.
        code: Of the catalogue.
    """

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(one_line(message))
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found; whatever is not known stays empty.

    Attributes:
        image_id: As in the file.
        file_name: Of the image (or of the file in question).
        annotation_id: As in the file.
        detail: What is special about this place.
    """

    image_id: int | None = None
    file_name: str = ""
    annotation_id: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        parts = []
        if self.annotation_id is not None:
            parts.append(f"annotation {self.annotation_id}")
        if self.image_id is not None:
            parts.append(f"image {self.image_id}" + f" ({self.file_name})" * bool(self.file_name))
        elif self.file_name:
            parts.append(self.file_name)
        where = ", ".join(parts)
        return ": ".join(text for text in (where, self.detail) if text)


_NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Kind:
    """The words for one kind of problem.

    Attributes:
        severity: "breaks" (training stops or cannot start), "spoils" (it runs and gets worse) or
            "note" (worth knowing).
        unit: What is counted, singular.
        what: What is wrong and what it leads to.
        advice: What to do.
        repair: What `--fix` does; empty: nothing.
        error: The sentence of a reader that refuses, with fields in braces.
        detail: What the doctor says of one place, likewise.
    """

    severity: Severity
    unit: str
    what: str
    advice: str
    repair: str = ""
    error: str = ""
    detail: str = ""


@cache
def catalogue() -> dict[str, Kind]:
    """All kinds by code, in the order in which findings of one severity are listed."""
    file = resources.files("diffinst.datasets") / "catalogue.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {code: Kind(**entry) for code, entry in entries.items()}


class Problems(Protocol):
    """The port."""

    def note(
        self,
        code: str,
        place: Place = ...,
        *,
        where: str = ...,
        repaired: bool = ...,
        **said: object,
    ) -> None:
        """Tell one problem.

        Args:
            code: Of the catalogue.
            place: Where it is, for a report.
            where: Where in the file it is, for an error.
            repaired: False where `--fix` cannot do its usual repair.
            said: Fields of the catalogue's sentences.
        """


class Refusal:
    """Refuses a file because of the first thing that is wrong with it.

    Args:
        file: Named in the error; None where `where` names the file, too.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = "" if file is None else str(file)

    def note(
        self,
        code: str,
        place: Place = _NOWHERE,
        *,
        where: str = "",
        repaired: bool = True,
        **said: object,
    ) -> None:
        """Raise.

        Raises:
            DatasetError: Always.
        """
        error = refused(code, **said)
        message = ": ".join(text for text in (self.file, where, str(error)) if text)
        raise DatasetError(message, code)


def refused(code: str, **said: object) -> DatasetError:
    """The error of a reader that refuses, in the catalogue's words, without the place."""
    return DatasetError(catalogue()[code].error.format_map(said), code)


def merge_namesakes(
    names: dict[int, str], problems: Problems, *, where: str, table: str, unit: str
) -> dict[int, int]:
    """Tell which classes have the same name, and keep the first of each.

    Args:
        names: By id; those that are merged into another are removed.
        problems: Gets what is wrong.
        where: The file, if `problems` does not know it.
        table: What holds the names.
        unit: What a class is called there, plural.

    Returns:
        By id: itself, or the class it is merged into.
    """
    renumbered = {number: number for number in names}
    twins = repeated(names, names.__getitem__)
    for name, ids in twins:
        problems.note(
            "duplicate-class-name",
            where=where,
            table=table,
            names=shown(name for name, _ in twins),
            detail=f"'{name}': {unit} {', '.join(map(str, ids))}",
        )
        for number in ids[1:]:
            renumbered[number] = ids[0]
            del names[number]
    return renumbered


def repeated(
    items: Iterable[_Item], key: Callable[[_Item], _Key]
) -> list[tuple[_Key, list[_Item]]]:
    """The groups of two or more items with an equal key."""
    groups: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [(value, group) for value, group in groups.items() if len(group) > 1]


def shown(values: Iterable[int | str]) -> str:
    """The first few values, and how many there are more."""
    listed = list(values)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(str, listed[:_SHOWN])) + more
