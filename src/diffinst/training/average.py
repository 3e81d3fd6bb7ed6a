"""The moving average of the weights that is evaluated and saved."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class WarmAverage(WeightAveraging):
    """Exponential moving average of the weights; decay (1 + i) / (10 + i), at most `decay`."""

    def __init__(self, decay: float) -> None:
        def average(means: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
            if not means[0].is_floating_point():  # counters
                torch._foreach_copy_(list(means), list(new))
                return
            i = float(count)
            kept = min(decay, (1 + i) / (10 + i))
            torch._foreach_lerp_(list(means), list(new), 1 - kept)

        super().__init__(multi_avg_fn=average)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average stays in place while the module scores it and saves the best."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Now the weights that are trained come back."""
        super().on_validation_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run resumed behind its last iteration ends with the average, too."""
        self.on_train_end(trainer, pl_module)
