"""Where training stands, as a line now and then: for pipes, files and batch systems."""

from __future__ import annotations

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from diffinst.training.plan import duration

EVERY = 30.0  # seconds


class ProgressLines(Callback):
    """Says iteration, loss, rate and time left on stderr, at most every `EVERY` seconds.

    Args:
        iterations: Of the whole run.
    """

    def __init__(self, iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        self._begin = self._said = time.monotonic()
        self._done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts."""
        self._begin = self._said = time.monotonic()
        self._done = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """After a step, if a line is due."""
        self._done += 1
        iteration, now = batch_idx + 1, time.monotonic()
        ends = iteration == self.iterations
        if not trainer.is_global_zero or (now - self._said < EVERY and not ends):
            return
        self._said = now
        each = (now - self._begin) / self._done
        left = "" if ends else f", {duration(each * (self.iterations - iteration))} left"
        shown = trainer.progress_bar_metrics
        values = [f"{name} {shown[name]:.4g}" for name in ("loss", "AP") if name in shown]
        print(
            ", ".join(
                [f"iteration {iteration} of {self.iterations}", *values, f"{each:.2f} s each"]
            )
            + left,
            file=sys.stderr,
            flush=True,
        )
