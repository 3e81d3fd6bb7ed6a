"""How a command ends: an error is one line, SIGTERM is Ctrl-C, and both have their exit codes.

0 done, 1 an error (its line is on stderr), 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.markup import escape

from diffinst.cli.terminal import console
from diffinst.io.atomic import remove_unfinished
from diffinst.io.disk import FULL
from diffinst.io.lock import alone_in

TERMINATED = 128 + signal.SIGTERM


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Errors of the user's making are one clear line, not a traceback.

    Raises:
        SystemExit: With the exit code, after an error or SIGTERM.
    """
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise SystemExit(TERMINATED)  # as Ctrl-C: what is done is kept, what is half done removed

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except Exception as error:
        if stopped:  # what a stop breaks on its way is no news
            raise SystemExit(TERMINATED) from error
        if not isinstance(error, ValueError | OSError | MemoryError | FloatingPointError):
            raise
        console.print(f"[bold red]error:[/bold red] {escape(_line(error))}", soft_wrap=True)
        sys.exit(1)
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _line(error: Exception) -> str:
    """What an error says; of a system's error its own words, without a number in front."""
    if not isinstance(error, OSError) or error.errno is None or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in FULL and error.filename is not None:
        return f"{where}the disk (or your quota) is full; free some space there"
    return f"{where}{error.strerror}"


@contextmanager
def writing_into(folder: Path | None, *parts: str) -> Iterator[None]:
    """Hold the folder that a command writes, without what a killed one left half written there.

    Args:
        folder: Made if needed, and removed again if it stays empty; None: nothing is kept.
        parts: Folders in it that are written, too.

    Raises:
        BlockingIOError: Another program is at work there.
        OSError: The disk is full; names the folder.
    """
    if folder is None:
        yield
        return
    new = not folder.exists()
    try:
        with alone_in(folder):
            for part in (folder, *(folder / name for name in parts)):
                remove_unfinished(part)
            yield
    except OSError as error:
        if error.errno not in FULL or str(folder) in str(error):
            raise
        raise OSError(
            error.errno,
            f"the disk (or your quota) of {folder} is full; free some space there, or choose "
            "another folder, and start the same command again",
        ) from error
    finally:
        if new:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()
