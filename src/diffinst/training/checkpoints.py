"""Training checkpoints on disk: whole or not at all, and clear about a full disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from diffinst.io.atomic import atomic_path


class RegularCheckpoints(Checkpoint):
    """Saves what a run needs to go on, always into the same file.

    Where an evaluation is due, it waits for its end: the checkpoint then knows the score, and
    whether training is to stop. A run killed in between repeats the steps since the one before.

    Args:
        path: The file.
        every: Iterations between two checkpoints.
        evaluate_every: Iterations between two evaluations; 0: there are none.
    """

    def __init__(self, path: Path, every: int, evaluate_every: int) -> None:
        super().__init__()
        self.path, self.every, self.evaluate_every = path, every, evaluate_every

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """After a step, if one is due and no evaluation follows."""
        done = batch_idx + 1
        evaluates = self.evaluate_every and done % self.evaluate_every == 0
        if (done % self.every == 0 or done == trainer.num_training_batches) and not evaluates:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After every evaluation within training."""
        if trainer.state.fn == TrainerFn.FITTING:
            trainer.save_checkpoint(self.path)


class AtomicCheckpoints(CheckpointIO):
    """Writes under a temporary name, then renames: killed at any moment, the last one is whole."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object | None = None,
    ) -> None:
        """Write everything that a run needs to go on.

        Raises:
            OSError: The disk is full, or the folder cannot be written; names both.
        """
        with atomic_path(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's own writer hides the errno
                with temporary.open("ab") as file:  # says it again, if it is the disk
                    file.write(b"\0" * 4096)
                    file.flush()
                raise OSError(f"cannot write {path}: {error}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read it back; nothing in it is executed.

        Raises:
            ValueError: It is no whole checkpoint, or not of a run of ours.
        """
        try:
            content: dict[str, Any] = torch.load(
                path, map_location=map_location or "cpu", weights_only=True
            )
        except (RuntimeError, EOFError, ValueError, OSError, UnpicklingError) as error:
            if isinstance(error, OSError) and error.filename is not None:  # not there
                raise
            raise ValueError(
                f"{path} is no whole checkpoint ({error}); name another one, or start again "
                "without --resume"
            ) from error
        if not isinstance(content, dict) or not content.keys() >= {"diffinst", "state_dict"}:
            raise ValueError(
                f"{path} is no checkpoint of a diffinst run; put the run's own one back, or start "
                "again without --resume"
            )
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is still there."""
        Path(path).unlink(missing_ok=True)
