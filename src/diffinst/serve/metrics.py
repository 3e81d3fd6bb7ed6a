"""Counts what the server did, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Metrics:
    """Named sums; any thread may add.

    Example:
        >>> metrics = Metrics()
        >>> metrics.count("images")
        >>> print(metrics.text({"queue": 2}), end="")
        diffinst_images_total 1
        diffinst_queue 2
    """

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        """One more."""
        self.add(name, 1)

    def add(self, name: str, amount: float) -> None:
        """Add to a sum."""
        with self._lock:
            self._sums[name] += amount  # type: ignore[assignment]

    def __getitem__(self, name: str) -> float:
        return self._sums[name]

    def text(self, levels: Mapping[str, float]) -> str:
        """All sums, and levels as they are now; a line each."""
        with self._lock:
            sums = {f"diffinst_{name}_total": value for name, value in self._sums.items()}
        now = {f"diffinst_{name}": value for name, value in levels.items()}
        return "".join(f"{name} {value:g}\n" for name, value in sorted((sums | now).items()))
