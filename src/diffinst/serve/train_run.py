"""A training of its own process: trains, scores old and new on held-out images, keeps the better.

`python -m diffinst.serve.train_run FOLDER` goes on where it was cut off. It ends when its stdin
does, so with the server that started it, however that ends.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from diffinst.io.atomic import write_json
from diffinst.io.one_line import one_line

ASKED, STANDING = "asked.json", "standing.json"
DATA, ORIGIN, RUN, MODEL, LOG = "data", "origin", "run", "model", "log.txt"
Phase = Literal["starting", "training", "scoring", "stopped", "failed", "done"]
FINE_TUNING_RATE = 1e-4  # docs/train.md: from trained weights
MOST_CHECKPOINTS = 10  # of a run, about
OFTEN = 1.0  # seconds between two notes of the scoring
LOW = 10  # niceness: what serves the page goes first


@dataclass(frozen=True)
class Asked:
    """What a session asked for.

    Attributes:
        name: Of the new model.
        origin: Name of the model that it starts from.
        iterations: Of training.
        trained_on: Ids of the images.
        held_out: Ids of those that both models are scored on.
        classes: Of both models.
        began: Seconds since the epoch.
    """

    name: str
    origin: str
    iterations: int
    trained_on: tuple[str, ...]
    held_out: tuple[str, ...]
    classes: tuple[str, ...]
    began: float

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """From a training's folder."""
        return msgspec.json.decode((folder / ASKED).read_bytes(), type=cls)


@dataclass(frozen=True)
class Standing:
    """Where it stands.

    Attributes:
        phase: What it does, or how it ended.
        iteration: Of training, done.
        loss: At that iteration.
        seconds_left: Of training.
        scored: Images scored, by either model.
        to_score: Of how many.
        old: Mask AP of the origin on the held-out images.
        new: That of the new model.
        detail: Why it failed.
    """

    phase: Phase = "starting"
    iteration: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    scored: int = 0
    to_score: int = 0
    old: float | None = None
    new: float | None = None
    detail: str = ""

    @property
    def better(self) -> bool:
        """Whether the new model is the better one."""
        return self.old is not None and self.new is not None and self.new > self.old

    @classmethod
    def read(cls, folder: Path) -> Standing:
        """From a training's folder."""
        return msgspec.json.decode((folder / STANDING).read_bytes(), type=cls)

    def write(self, folder: Path) -> None:
        """Into it."""
        write_json(folder / STANDING, asdict(self))


def train_and_score(folder: Path) -> None:
    """All of it, or what is left of it."""
    from diffinst.evaluation.evaluate import evaluate
    from diffinst.training.run_folder import CHECKPOINT
    from diffinst.training.train import Progress, train
    from diffinst.weights import store

    asked, standing = Asked.read(folder), Standing.read(folder)
    run, data = folder / RUN, folder / DATA

    def tell(at: Progress) -> None:
        nonlocal standing
        standing = replace(
            standing, phase="training", iteration=at.iteration,
            loss=_number(at.shown.get("loss")), seconds_left=at.seconds_left,
        )  # fmt: skip
        standing.write(folder)

    if not all((run / file).is_file() for file in (store.WEIGHTS_FILE, store.CONFIG_FILE)):
        if (run / CHECKPOINT).is_file():
            print("the training goes on from its last checkpoint", flush=True)
            train(data, out=run, resume=True, progress=tell)
        else:
            origin = folder / ORIGIN
            train(data, origin=origin, out=run, train=_settings(origin, asked), progress=tell)
    print("the old and the new model are scored", flush=True)
    scores = []
    for i, model in enumerate((folder / ORIGIN, run)):

        def count(done: int, total: int, i: int = i) -> None:
            nonlocal standing
            scored, both = i * total + done, 2 * total
            standing = replace(standing, phase="scoring", scored=scored, to_score=both)
            standing.write(folder)

        report = evaluate(model, data, progress=_now_and_then(count))
        scores.append(_number(report.mask.ap))
    standing = replace(standing, phase="done", old=scores[0], new=scores[1])
    if standing.better:
        (folder / MODEL).mkdir(exist_ok=True)
        for file in (store.WEIGHTS_FILE, store.CONFIG_FILE):
            shutil.copyfile(run / file, folder / MODEL / file)
    standing.write(folder)  # before what a further start would need is removed
    for part in (DATA, ORIGIN, RUN):
        shutil.rmtree(folder / part, ignore_errors=True)


def _settings(origin: Path, asked: Asked) -> dict[str, object]:
    """Of `train`: a short schedule from trained weights, nothing chosen by the held-out images."""
    from diffinst.config import Config
    from diffinst.weights import store

    own = Config.from_file(origin / store.CONFIG_FILE).train
    iterations = asked.iterations
    return {
        "iterations": iterations,
        "schedule": "cosine",
        "scaling": "none",
        "milestones": [],
        "warmup": min(own.warmup, iterations // 10),
        "lr": min(own.lr, FINE_TUNING_RATE),
        "eval_every": 0,
        "patience": 0,
        "checkpoint_every": math.ceil(iterations / MOST_CHECKPOINTS),
        "loggers": ["csv"],
        "workers": min(own.workers, 1),
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _now_and_then(count: Callable[[int, int], None]) -> Callable[[int, int], None]:
    last = -math.inf

    def due(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done in (0, total) or now - last >= OFTEN:
            last = now
            count(done, total)

    return due


def _end_with_the_server() -> None:
    os.read(0, 1)  # nothing is ever sent: it returns when the other end of stdin is closed
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with what reads its data; files are atomic
    os._exit(1)


def main(folder: Path) -> int:
    """Run it; the exit code."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    if sys.platform != "win32":
        os.nice(max(0, LOW - os.nice(0)))  # it may have been started with a low priority itself
    try:
        train_and_score(folder)
    except Exception as error:  # whoever asked reads it on the page
        traceback.print_exc()
        said = one_line(str(error).replace(f"{folder}{os.sep}", "")) or type(error).__name__
        replace(Standing.read(folder), phase="failed", detail=said).write(folder)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
