"""Training checkpoints on disk: whole or not at all, and clear about a full disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from diffinst.io.atomic import atomic_path


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
            ValueError: It is no checkpoint of ours.
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
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is still there."""
        Path(path).unlink(missing_ok=True)
