"""A process that predicts, watched: what hangs, dies or takes all memory is replaced."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from diffinst.scale.messages import Broken, Item, Ready, Row, Said, Setup, answer, receive, send

LOOK = 0.2  # seconds between two looks at a process's memory
START = 600.0  # seconds that loading a model may take
STARTS = 5  # processes that may fail to start, one after the other


class WorkerTrouble(Exception):
    """A process was lost with images in hand; `rows` are those that it had answered.

    Attributes:
        hung: It was stopped because it did not answer in time.
    """

    def __init__(self, reason: str, *, hung: bool = False) -> None:
        super().__init__(reason)
        self.hung = hung


class Watched:
    """One process with one model, started when it is first needed and again when it is lost.

    Args:
        setup: What it predicts with.
        timeout: Seconds without an answer after which it counts as hung.
        memory: Bytes that it may take; None: its fraction of the machine's is not known.
        note: Gets what is to be told of how images are read.
    """

    def __init__(
        self, setup: Setup, timeout: float, memory: int | None, note: Callable[[str], object]
    ) -> None:
        self.setup, self.timeout, self.memory, self.note = setup, timeout, memory, note
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._at_once = 1
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def at_once(self) -> int:
        """Images that go through the model together; starts it.

        Raises:
            ChildProcessError: It cannot be started; says why.
        """
        self._start()
        return self._at_once

    def predict(self, items: Sequence[Item], answered: Callable[[Row], None]) -> None:
        """Predict a chunk; each row is handed on as it comes, in order.

        Raises:
            WorkerTrouble: The process hung, died or took too much memory; it is gone.
            ChildProcessError: None can be started, or none can go on (a full disk).
        """
        self._start()
        assert self._process is not None
        try:
            send(cast(BinaryIO, self._process.stdin), list(items))
        except OSError:
            raise self._lost() from None
        left = len(items)
        while left:
            match self._next(self.timeout):
                case Row() as row:
                    answered(row)
                    left -= 1
                case Said(text):
                    self.note(text)
                case Broken(reason, final):
                    lost = self._lost(reason)
                    raise ChildProcessError(reason) if final else lost

    def close(self) -> None:
        """End the process at once, for good; may be called from another thread."""
        self._closed = True
        self._kill()

    def _start(self) -> None:
        if self._process is not None:
            return
        reason = ""
        for _ in range(STARTS):
            if self._closed:
                break
            command = [sys.executable, "-m", "diffinst.scale.worker"]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
            if self._closed:  # meanwhile, by another thread
                self._kill()
                break
            self._answers = queue.SimpleQueue()
            pipe, answers = cast(BinaryIO, self._process.stdout), self._answers
            threading.Thread(target=_listen, args=(pipe, answers), daemon=True).start()
            try:
                send(cast(BinaryIO, self._process.stdin), self.setup)
                first = self._next(START)
            except (OSError, WorkerTrouble) as trouble:
                reason = str(trouble) or type(trouble).__name__
                self._kill()
                continue
            if isinstance(first, Ready):
                self._at_once = first.at_once
                return
            reason = first.reason if isinstance(first, Broken) else "it said something else"
            self._kill()
            if isinstance(first, Broken):
                break  # it would say the same again
        raise ChildProcessError(f"a process that predicts could not be started: {reason}")

    def _next(self, patience: float) -> Row | Ready | Said | Broken:
        """The next answer; looks at the process's memory meanwhile."""
        end = time.monotonic() + patience
        while True:
            try:
                content = self._answers.get(timeout=LOOK)
            except queue.Empty:
                self._check_memory()
                if time.monotonic() > end:
                    self._kill()
                    raise WorkerTrouble(f"no answer within {patience:g} s", hung=True) from None
                continue
            if content is None:
                raise self._lost()
            return answer(content)

    def _check_memory(self) -> None:
        if self.memory is None or self.pid is None:
            return
        if resident(self.pid) > self.memory:
            self._kill()
            # Without a number: the same image gives the same row on every machine.
            raise WorkerTrouble("took more memory than one process may have")

    def _lost(self, reason: str = "") -> WorkerTrouble:
        """The error that says how the process ended."""
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(5)
        self._kill()
        if not reason:
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            reason = f"the process that read and predicted it ended ({how})"
        return WorkerTrouble(reason)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None and pipe is not process.stdout:  # the listener reads that one
                    pipe.close()


def _listen(pipe: BinaryIO, answers: queue.SimpleQueue[bytes | None]) -> None:
    with pipe:
        while (content := receive(pipe)) is not None:
            answers.put(content)
    answers.put(None)


def resident(pid: int) -> int:
    """Bytes of main memory that a process holds; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text("ascii")
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def memory_each(processes: int) -> int | None:
    """What each of some processes may take of this machine's, or this job's, memory."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    for limit in _limits():
        total = min(total, limit)
    return total * 9 // 10 // processes


def _limits() -> list[int]:
    """Limits of the control groups that this process is in (Slurm, Kubernetes)."""
    found = []
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        own = Path("/proc/self/cgroup").read_text("utf-8").strip().rpartition("::")[2]
        places = [root / own.lstrip("/") / "memory.max", root / "memory.max"]
        for place in [*places, root / "memory" / "memory.limit_in_bytes"]:
            with contextlib.suppress(OSError, ValueError):
                found.append(int(place.read_text("ascii")))
    return found
