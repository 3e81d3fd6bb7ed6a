"""Keeps a second program away from a file or a folder that one is at work on.

The locks are the operating system's: they end with the program, however it ends. Some network file
systems have none; there nothing is checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

LOCK_FILE = ".diffinst.lock"
"""Held in place of its folder on Windows, which has no locks on folders."""

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_FAR = 1 << 40  # Windows keeps readers from a locked byte: take one that no file has


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and hold it, so that no second program unpacks into it at the same time.

    Raises:
        BlockingIOError: Another program holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _has_fcntl():
        held, handle = folder, os.open(folder, os.O_RDONLY)
    else:
        held = folder / LOCK_FILE
        handle = os.open(held, os.O_RDWR | os.O_CREAT)
    try:
        lock(handle, folder)
        yield
    finally:
        os.close(handle)
        if held != folder:
            with contextlib.suppress(OSError):  # another program has it already
                held.unlink()


def lock(handle: int, path: Path) -> None:
    """Lock an open file or folder until it is closed.

    Args:
        handle: The descriptor, on Windows of a file.
        path: Named in the error.

    Raises:
        BlockingIOError: Another program holds it.
    """
    take, taken = (_flock, errno.EWOULDBLOCK) if _has_fcntl() else (_lock_byte, errno.EACCES)
    try:
        take(handle)
    except OSError as error:
        if error.errno == taken:
            raise BlockingIOError(
                errno.EAGAIN, f"another program is at work on {path}; wait until it has finished"
            ) from error
        if error.errno not in _WITHOUT_LOCKS:
            raise


def _has_fcntl() -> bool:
    try:
        import_module("fcntl")
    except ImportError:
        return False
    return True


def _flock(handle: int) -> None:
    fcntl = import_module("fcntl")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_byte(handle: int) -> None:
    msvcrt = import_module("msvcrt")
    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _FAR, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    finally:
        os.lseek(handle, before, os.SEEK_SET)
