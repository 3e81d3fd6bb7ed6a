"""Commands that work in turns on one machine: a slice of time each, or one question each.

What else runs on the machine then hits all of them alike.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

GIB = 2**20  # KiB, in which Linux counts resident memory


class Worker:
    """A command in a process group of its own, which works only when told to.

    Args:
        arguments: The command.
        folder: Its output goes to `output.txt` in there.

    Attributes:
        running: Not at its end yet.
        seconds: Wall clock in which it worked.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.arguments = list(arguments)
        self.folder = folder
        self.running = True
        self.seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._usage: resource.struct_rusage | None = None

    def __enter__(self) -> Worker:
        """Nothing: it starts with its first turn."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no stopped process behind."""
        if self._process is not None and self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            os.waitpid(self._process.pid, 0)
            self._process.returncode = -signal.SIGKILL

    def work(self, seconds: float | None = None) -> None:
        """Let it run for so long (None: to its end), then stop it and its children.

        Raises:
            RuntimeError: It failed.
        """
        begin = time.perf_counter()
        if self._process is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "output.txt").open("wb") as output:
                self._process = subprocess.Popen(
                    self.arguments, stdout=output, stderr=output, start_new_session=True
                )
        else:
            os.killpg(self._process.pid, signal.SIGCONT)
        while True:
            ended, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            worked = time.perf_counter() - begin
            if ended:
                self.running, self._usage = False, usage
                self._process.returncode = os.waitstatus_to_exitcode(status)
                break
            if seconds is not None and worked >= seconds:
                os.killpg(self._process.pid, signal.SIGSTOP)
                break
            time.sleep(0.05)
        self.seconds += worked
        if self._process.returncode:
            raise RuntimeError(
                f"{' '.join(self.arguments)} failed; see {self.folder / 'output.txt'}"
            )

    def used(self) -> dict[str, float]:
        """Of a finished command: seconds at work, CPU seconds, GiB of its largest process."""
        assert self._usage is not None
        return {
            "seconds": self.seconds,
            "cpu_seconds": self._usage.ru_utime + self._usage.ru_stime,
            "peak_gib": self._usage.ru_maxrss / GIB,
        }


class Server:
    """A process that answers each line with one number; see `answer` for its other end."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> float:
        """The number.

        Raises:
            RuntimeError: The process ended without one.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} gave no answer to '{line}'")
        return float(answer)

    def close(self) -> float:
        """End it; GiB of its peak memory."""
        peak = self.ask("")
        self._process.wait()
        return peak


def peak_gib() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB


def seconds_between(logs: Path, tag: str, settled: int) -> list[float]:
    """Seconds an iteration between the time stamps of a TensorBoard log, from `settled` on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs))
    events.Reload()
    stamps = [(e.step, e.wall_time) for e in events.Scalars(tag) if e.step >= settled]
    return [(late - early) / (end - start) for (start, early), (end, late) in pairwise(stamps)]
