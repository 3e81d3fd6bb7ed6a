"""The folder of a run: who may start or go on there, and what is said when its disk is full."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from diffinst.config import Config, ConfigError
from diffinst.io.atomic import remove_unfinished
from diffinst.io.disk import FULL
from diffinst.io.lock import alone_in
from diffinst.weights import runs, store

RUN_FILE = "run.json"
PLAN_FILE = "plan.json"
METRICS_FILE = "metrics.json"
BEST, CHECKPOINT = runs.BEST, runs.CHECKPOINT
SHEETS = "val_predictions"
LINGERING = 8.0  # seconds until the data workers of a killed run notice, and let go of its folder

FREE_ON_RESUME = {  # what may change without another course of training
    "model.backbone.weights_file",
    "criterion.mask_chunk",
    "train.accumulate",
    "train.activation_checkpointing",
    "train.bad_steps",
    "train.checkpoint_every",
    "train.log_every",
    "train.loggers",
    "train.workers",
}


def check(out: Path, *, resume: bool) -> None:
    """Refuse to overwrite a run, and to resume nothing.

    Raises:
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: Nothing to resume.
    """
    last = out / CHECKPOINT
    if resume and not last.is_file():
        raise FileNotFoundError(f"{last} does not exist: nothing to resume; omit --resume")
    if not resume and (last.is_file() or (out / store.WEIGHTS_FILE).is_file()):
        raise FileExistsError(f"{out} already holds a run; use --resume or another --out")


@contextmanager
def held(out: Path, *, resume: bool) -> Iterator[None]:
    """Keep other runs away, and remove the temporary files that killed ones left.

    Raises:
        BlockingIOError: Another program is at work there.
        FileExistsError: A run ended there meanwhile.
    """
    with ExitStack() as lock:
        _enter(lock, out, patience=LINGERING if resume else 0.0)
        check(out, resume=resume)
        for folder in (out, out / CHECKPOINT.parent, out / BEST, out / SHEETS):
            remove_unfinished(folder)
        yield


def _enter(lock: ExitStack, out: Path, *, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            lock.enter_context(alone_in(out))
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        else:
            return


def refuse_changes(before: Config, now: Config, out: Path) -> None:
    """A resumed run keeps its settings, so that it ends as it would have without the break.

    Raises:
        ConfigError: Names the fields that changed, with both values.
    """
    old, new = _flat(before.to_dict()), _flat(now.to_dict())
    changed = [k for k in old if old[k] != new.get(k) and k not in FREE_ON_RESUME]
    if changed:
        listed = "; ".join(f"{k} was {old[k]}, now {new.get(k)}" for k in changed[:5])
        raise ConfigError(
            f"{out} was started with other settings or other classes: {listed}. Resume with the "
            f"same ones, or start another run from its weights: --from {out / BEST} --out ANOTHER"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        name = prefix + key
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


@contextmanager
def disk_named(out: Path) -> Iterator[None]:
    """A full disk is answered by which disk, and by what is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        last = out / CHECKPOINT
        then = "start again"
        if last.is_file():
            then = f"go on with --resume: the last checkpoint, {last}, is intact"
        said = error.strerror or str(error)
        if "is full" not in said:  # one that names the disk says what to do as well
            said = f"the disk of {out.resolve()} is full ({said}); free some space there"
        raise OSError(error.errno, f"{said}, and {then}") from error


def best_model(out: Path) -> Path | None:
    """Folder of the model with the best AP on val, if the run evaluated one."""
    folder = out / BEST
    return folder if (folder / store.WEIGHTS_FILE).is_file() else None
