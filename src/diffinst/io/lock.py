"""Keeps a second program away from a file or a folder that one is at work on.

A lock is held on a small file of its own and ends with the program, however that ends. On file
systems without locks nothing is checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".diffinst.lock"
"""The file in a folder that is there while a program holds the folder (or after it was killed)."""

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and hold it while the block runs.

    Whoever holds a folder may write, replace and remove what is in it. Only those who also hold
    it are kept away: readers are not, and neither are holders of folders above and below. The
    same program cannot hold a folder twice.

    Args:
        folder: Made with those above it; `LOCK_FILE` lies in it while the block runs.

    Raises:
        BlockingIOError: Another program holds it; says which process, where and since when.
        OSError: It cannot be made or written.
    """
    with _held(folder / LOCK_FILE, folder):
        yield


@contextmanager
def alone_with(file: Path) -> Iterator[None]:
    """Hold a file, there or not yet, while the block runs.

    Args:
        file: NAME.lock lies beside it while the block runs; folders above it are made.

    Raises:
        BlockingIOError: Another program holds it.
        OSError: Its folder cannot be made or written.
    """
    with _held(file.with_name(f"{file.name}.lock"), file):
        yield


@contextmanager
def _held(lock_file: Path, what: Path) -> Iterator[None]:
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    # Removed here while it is held, so that who waits for this very file sees that it is gone;
    # Windows removes no open file, but the library does so afterwards.
    lock = FileLock(lock_file, preserve_lock_file=os.name != "nt")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise BlockingIOError(
            errno.EAGAIN,
            f"another program is at work on {what}; wait until it has finished{_holder(lock_file)}",
        ) from error
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        with contextlib.suppress(OSError):  # a full disk holds an empty file just as well
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            lock_file.write_text(f"process {os.getpid()} on {platform.node()}, since {since}")
        yield
    finally:
        with contextlib.suppress(OSError):
            lock_file.unlink()
        lock.release()


def _holder(lock_file: Path) -> str:
    """Who holds it, as far as can be read."""
    try:
        said = lock_file.read_text("utf-8", errors="replace")[:200]
    except OSError:  # Windows lets nobody read it
        return ""
    return f" ({said})" if said.isprintable() and said else ""
