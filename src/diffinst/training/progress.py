"""Where training stands, now and then: a line for pipes, files and batch systems, or values."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from diffinst.training.plan import duration

EVERY = 30.0  # seconds between lines
OFTEN = 1.0  # seconds between values


@dataclass(frozen=True)
class Progress:
    """Where training stands after an iteration.

    Attributes:
        iteration: Done, from 1.
        iterations: Of the whole run.
        shown: `loss` and, once evaluated, `AP`.
        seconds_each: Mean of an iteration since the run was started or resumed.
    """

    iteration: int
    iterations: int
    shown: dict[str, float]
    seconds_each: float

    @property
    def seconds_left(self) -> float:
        """Until the last iteration."""
        return self.seconds_each * (self.iterations - self.iteration)


Tell = Callable[[Progress], None]


class ProgressCalls(Callback):
    """Tells somebody where training stands.

    Args:
        iterations: Of the whole run.
        tell: Is told, in the first process alone, at the end and now and then before.
        every: Seconds at least between two calls, the last one excepted.
    """

    def __init__(self, iterations: int, tell: Tell, every: float) -> None:
        super().__init__()
        self.iterations, self._tell, self._every = iterations, tell, every
        self._begin = self._told = time.monotonic()
        self._done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts."""
        self._begin = self._told = time.monotonic()
        self._done = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """After a step, if a call is due."""
        self._done += 1
        iteration, now = batch_idx + 1, time.monotonic()
        ends = iteration == self.iterations
        if not trainer.is_global_zero or (now - self._told < self._every and not ends):
            return
        self._told = now
        values = trainer.progress_bar_metrics
        shown: dict[str, float] = {
            str(name): float(values[name]) for name in ("loss", "AP") if name in values
        }
        each = (now - self._begin) / self._done
        self._tell(Progress(iteration, self.iterations, shown, each))


def say(at: Progress) -> None:
    """A line on stderr."""
    left = f", {duration(at.seconds_left)} left" if at.iteration < at.iterations else ""
    values = [f"{name} {value:.4g}" for name, value in at.shown.items()]
    line = [
        f"iteration {at.iteration} of {at.iterations}",
        *values,
        f"{at.seconds_each:.2f} s each",
    ]
    print(", ".join(line) + left, file=sys.stderr, flush=True)
