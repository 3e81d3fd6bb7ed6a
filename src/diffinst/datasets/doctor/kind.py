"""What is said about one kind of finding, wherever it is found?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity = Literal["breaks", "spoils", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """The words for one kind of finding.

    Attributes:
        severity: "breaks", "spoils" or "note", see `findings.Finding`.
        unit: What is counted, singular.
        what: What is wrong and what it leads to.
        advice: What to do.
        repair: What `--fix` does; empty: nothing.
    """

    severity: Severity
    unit: str
    what: str
    advice: str
    repair: str = ""


Kinds: TypeAlias = dict[str, Kind]
"""By code, in the order in which findings of one severity are listed."""

LEFT_OUT = "leaves the object out"
