"""How far a run is: images done, rate, time left, errors so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    Attributes:
        done: Images, those of earlier runs included.
        total: Images of this run's part.
        errors: Images of this run that could not be read or predicted.
        rate: Images a second of this run; 0: none yet.
        left: Seconds to go at this rate; None: not known yet.
    """

    done: int
    total: int
    errors: int
    rate: float
    left: float | None


class Counter:
    """Counts images from several threads and tells each time.

    Args:
        total: Images of this run's part.
        before: Of these, done by an earlier run.
        tell: Gets the state after each image.
    """

    def __init__(self, total: int, before: int, tell: Callable[[Progress], None]) -> None:
        self.total, self.before, self._tell = total, before, tell
        self.done = self.errors = self.instances = 0
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._begin

    def count(self, images: int, errors: int, instances: int) -> None:
        """Take some images that are done."""
        with self._lock:
            self.done += images
            self.errors += errors
            self.instances += instances
            rate = self.done / max(self.seconds, 1e-9)
            done = self.before + self.done
            left = (self.total - done) / rate if self.done else None
            self._tell(Progress(done, self.total, self.errors, rate, left))
