"""What steps and proposals are worth: AP as it was measured, or by a rule where it was not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FRONT_FILE = "curve.json"
"""Lies beside the weights that it was measured with; `diffinst curve` writes it."""
WORTH_OF_BOXES = 0.02
"""AP that e times as many boxes bring where nothing was measured; nano-nuclei from 1,000 on."""


@dataclass(frozen=True)
class Measured:
    """AP of one setting, as measured."""

    kind: str
    steps: int
    proposals: int
    ap: float


@dataclass(frozen=True)
class Front:
    """What every number of steps and proposals is worth.

    Without measurements it is the number of boxes over all steps that counts (docs/steps.md).

    Attributes:
        rows: Measured settings; none: the rule.
    """

    rows: tuple[Measured, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Front:
        """The measurements that lie beside weights; none if there are none.

        Raises:
            ValueError: The file holds something else; names it.
        """
        path = folder / FRONT_FILE
        if not path.is_file():
            return cls()
        try:
            rows = json.loads(path.read_text("utf-8"))["rows"]
            return cls(tuple(_measured(row) for row in rows if _is_fixed(row)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} does not hold what `diffinst curve` writes ({error!r:.80}); remove it, or "
                "measure anew"
            ) from error

    def steps(self, kind: str, most: int) -> tuple[int, ...]:
        """The numbers of steps to choose from, up to `most`: those that were measured."""
        known = sorted({row.steps for row in self._of(kind) if row.steps <= most})
        return tuple(known) or tuple(range(1, most + 1))

    def proposals(self, kind: str, most: int) -> tuple[int, ...]:
        """The numbers of proposals that were measured, up to `most`; none: the rule."""
        return tuple(sorted({row.proposals for row in self._of(kind) if row.proposals <= most}))

    def _of(self, kind: str) -> list[Measured]:
        """What was measured of a sampler; one step is the same in all."""
        if all(row.kind != kind for row in self.rows):
            return []
        return [row for row in self.rows if row.kind == kind or row.steps == 1]

    def worth(
        self, kind: str, steps: int, proposals: Sequence[int] | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """AP of some numbers of proposals, as far as known: between those measured by their log.

        What was not measured, more proposals than the most, is worth no more than the most.

        Args:
            kind: The sampler.
            steps: One number.
            proposals: Several.
        """
        counts = np.asarray(proposals, dtype=float)
        known = sorted((row.proposals, row.ap) for row in self._of(kind) if row.steps == steps)
        if not known:
            worth: NDArray[np.float64] = WORTH_OF_BOXES * np.log(steps * counts)
            return worth
        measured, ap = np.array(known, dtype=float).T
        worth = np.interp(np.log(counts), np.log(measured), ap)
        worth *= np.minimum(1, counts / measured[0])
        return worth


def _is_fixed(row: dict[str, object]) -> bool:
    """Whether a row has a number of steps, and an AP, which images without objects do not have."""
    return row["steps"] != "auto" and row["mask/AP"] is not None


def _measured(row: dict[str, object]) -> Measured:
    kind, steps, proposals, ap = (row[key] for key in ("kind", "steps", "proposals", "mask/AP"))
    counts = isinstance(steps, int) and isinstance(proposals, int) and steps > 0 and proposals > 0
    if not isinstance(kind, str) or not counts or not isinstance(ap, int | float):
        raise TypeError("a row is not of its kind")
    if not isfinite(ap):
        raise ValueError("an AP is no number")
    return Measured(kind, int(steps), int(proposals), float(ap))  # type: ignore[call-overload]
