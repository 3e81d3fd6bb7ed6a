"""What to give in place of a run's folder or checkpoint that is no model (yet)."""

from __future__ import annotations

from pathlib import Path

BEST = "best"
CHECKPOINT = Path("checkpoints", "last.ckpt")
_WEIGHTS = "model.safetensors"


def instead_of_run(folder: Path) -> str:
    """What to add to "this folder holds no model"; nothing where it is no run either."""
    if not (folder / CHECKPOINT).is_file():
        return ""
    best = folder / BEST
    given = f"its best model so far is {best}, and " if (best / _WEIGHTS).is_file() else ""
    return (
        f". It is a run that has not ended: {given}`diffinst train --data DATA --out {folder} "
        "--resume` goes on with it"
    )


def instead_of_checkpoint(file: Path) -> str:
    """What to say of a training checkpoint that was given for a model."""
    run = file.parent.parent if file.parent.name == CHECKPOINT.parent.name else file.parent
    folders = [str(f) for f in (run / BEST, run) if (f / _WEIGHTS).is_file()]
    if folders:
        return (
            f"{file} is a training checkpoint; its run's model is {' or '.join(folders)}: give that"
        )
    return f"{file} is a training checkpoint and no model{instead_of_run(run)}"
