"""Keeps a second program away from a file or a folder that one is at work on.

A lock is held on a small file of its own and ends with the program, however that ends. On file
systems without locks nothing is checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
        BlockingIOError: Another program holds it.
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
            errno.EAGAIN, f"another program is at work on {what}; wait until it has finished"
        ) from error
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock_file.unlink()
        lock.release()
