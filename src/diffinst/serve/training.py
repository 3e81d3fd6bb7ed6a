"""Trains on what a session corrected: one training at a time, started, watched, stopped, resumed.

Each lies in a folder of the session's, `training/N`, and runs as a process of its own
(`train_run`), which ends with the server. What is on disk says where it stands, so a new server
knows of one that was cut off.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.one_line import one_line
from diffinst.serve.corrected import Corrected, cut, write_dataset
from diffinst.serve.looks import looks_in_parts
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import Sessions, room
from diffinst.serve.train_run import ASKED, DATA, LOG, MODEL, ORIGIN, RUN, Asked, Standing

CHILD = "diffinst.serve.train_run"
PLACE = "training"  # in a session's folder
ENDED = ("stopped", "failed", "done")
OURS = re.compile(r"-trained-\d+$")


@dataclass(frozen=True)
class Training:
    """One training of a session, as it stands.

    Attributes:
        folder: Its own.
        asked: What was asked for.
        standing: As far as it came.
        running: It is at work.
    """

    folder: Path
    asked: Asked
    standing: Standing
    running: bool

    @property
    def state(self) -> str:
        """running, done, stopped, failed, or interrupted: its server ended before it did."""
        ended = self.standing.phase in ENDED
        return "running" if self.running else self.standing.phase if ended else "interrupted"

    @property
    def can_resume(self) -> bool:
        """Whether what it needs to go on is there."""
        return self.state not in ("running", "done") and (self.folder / DATA).is_dir()


class Trainings:
    """All trainings of a server.

    Args:
        sessions: Whose images and models.
        device: Where models are trained and scored.
    """

    def __init__(self, sessions: Sessions, device: torch.device) -> None:
        self._sessions, self._device = sessions, device
        self._starting = threading.Lock()  # while files are written
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None  # of the training that runs

    def of(self, session: str | None) -> list[Training]:
        """A session's trainings, the last one last."""
        with self._lock:
            self._look()
            return self._all(session)

    def models(self, session: str | None) -> dict[str, Path]:
        """Folders of the models that a session trained and that were better, by name."""
        return {
            one.asked.name: one.folder / MODEL
            for one in self.of(session)
            if one.state == "done" and one.standing.better and (one.folder / MODEL).is_dir()
        }

    @property
    def running(self) -> bool:
        """Whether one is at work, of any session."""
        with self._lock:
            self._look()
            return self._process is not None

    def in_use(self, session_folder: Path) -> bool:
        """Whether a training of the session of this folder is at work."""
        with self._lock:
            self._look()
            return self._folder is not None and session_folder in self._folder.parents

    def start(
        self,
        session: str,
        name: str,
        model: DiffusionInst,
        images: list[Corrected],
        iterations: int,
        taken: Collection[str] = (),
    ) -> Training:
        """Train from a model, on some of the images; the others are held out.

        The new model is called after the old one, and not by a name that is taken.

        Raises:
            Refused: One is at work already, the images do not do, or there is no room.
        """
        with self._starting:
            with self._lock:
                self._alone()
                before = self._all(session)
            trained_on = {i for one in before for i in one.asked.trained_on}
            held_out = {i for one in before for i in one.asked.held_out}
            train, held = cut(images, trained_on, held_out)
            number = 1 + max((int(one.folder.name) for one in before), default=0)
            while (new := f"{OURS.sub('', name)}-trained-{number}") in taken:
                number += 1
            asked = Asked(
                new,
                name,
                iterations,
                tuple(one.about.id for one in train),
                tuple(one.about.id for one in held),
                model.class_names,
                time.time(),
            )
            folder = self._sessions.folder_of(session) / PLACE / str(number)
            shutil.rmtree(folder, ignore_errors=True)
            earlier = [one.folder / part for one in before for part in (DATA, ORIGIN, RUN)]
            try:
                with room():
                    model.save_pretrained(folder / ORIGIN)
                    splits = {"train": train, "val": held}
                    write_dataset(
                        folder / DATA,
                        self._sessions,
                        session,
                        splits,
                        model.class_names,
                        in_parts=looks_in_parts(model),
                    )
                    Standing().write(folder)
                    write_json(folder / ASKED, asdict(asked))  # last: now it is there
                self._sessions.check_room(session, without=earlier)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            for part in earlier:  # nobody goes on with an earlier one any more
                shutil.rmtree(part, ignore_errors=True)
            with self._lock:
                self._spawn(folder)
        return self.of(session)[-1]

    def resume(self, session: str) -> Training:
        """Go on with the last training, from its last checkpoint.

        Raises:
            Refused: There is nothing to go on with, or one is at work already.
        """
        with self._starting, self._lock:
            self._alone()
            last = next(reversed(self._all(session)), None)
            if last is None or not last.can_resume:
                raise Refused(409, "there is no training to go on with; start one")
            self._spawn(last.folder)
        return self.of(session)[-1]

    def stop(self, session: str) -> Training:
        """Stop the one at work; it can be resumed.

        Raises:
            Refused: None of this session is at work.
        """
        with self._lock:
            self._look()
            folder = self._folder
            if folder is None or self._sessions.folder_of(session) not in folder.parents:
                raise Refused(409, "no training of this session is at work")
            self._end()
            standing = Standing.read(folder)
            if standing.phase not in ENDED:
                replace(standing, phase="stopped").write(folder)
        return self.of(session)[-1]

    def close(self) -> None:
        """End what is at work; the next server can go on with it."""
        with self._lock:
            self._end()

    def _all(self, session: str | None) -> list[Training]:
        if session is None:  # ids of any other form are none: `session_of`
            return []
        found = (self._sessions.folder_of(session) / PLACE).glob(f"*/{ASKED}")
        folders = sorted((path.parent for path in found), key=lambda path: int(path.name))
        return [
            Training(folder, Asked.read(folder), Standing.read(folder), folder == self._folder)
            for folder in folders
        ]

    def _alone(self) -> None:
        self._look()
        if self._process is not None:
            raise Refused(
                409, "a training is at work on this server, one at a time; wait for its end, or "
                "stop it if it is yours"
            )  # fmt: skip

    def _spawn(self, folder: Path) -> None:
        standing = Standing.read(folder)
        replace(standing, phase="starting", seconds_left=None, detail="").write(folder)
        with open(folder / LOG, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(folder.resolve())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | seen_by(self._device),
                start_new_session=True,
                creationflags=_BELOW_NORMAL,
            )
        self._folder = folder

    def _look(self) -> None:
        """Note the end of the one at work."""
        process, folder = self._process, self._folder
        if process is None or folder is None or process.poll() is None:
            return
        self._end()
        standing = Standing.read(folder)
        if standing.phase not in ENDED:
            replace(standing, phase="failed", detail=_why(folder, process.returncode)).write(folder)

    def _end(self) -> None:
        process, self._process, self._folder = self._process, None, None
        if process is None:
            return
        if sys.platform == "win32":
            process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):  # with what reads its data
                os.killpg(process.pid, signal.SIGKILL)  # what it writes is whole or not there
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def seen_by(device: torch.device) -> dict[str, str]:
    """The environment of a process that sees this device and no other GPU."""
    if device.type != "cuda":
        return {"CUDA_VISIBLE_DEVICES": ""}
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    index = device.index or 0
    return {"CUDA_VISIBLE_DEVICES": own.split(",")[index] if own else str(index)}


_BELOW_NORMAL: int = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)  # Windows has it


def _why(folder: Path, code: int) -> str:
    if code == -9:
        return "the training was killed, for want of memory perhaps"
    lines = (folder / LOG).read_text("utf-8", "replace").strip().splitlines()
    said = lines[-1].replace(f"{folder.resolve()}{os.sep}", "") if lines else "no word"
    return one_line(f"the training ended with code {code}: {said}")
