"""Keeps a second program away from a file or a folder that one is at work on.

The locks are the operating system's: they end with the program, however it ends. Windows and some
network file systems have none; there nothing is checked.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and hold it, so that no second program unpacks into it at the same time.

    Raises:
        BlockingIOError: Another program holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, folder)
        yield
    finally:
        os.close(handle)


def lock(handle: int, path: Path) -> None:
    """Lock an open file or folder until it is closed.

    Args:
        handle: The descriptor.
        path: Named in the error.

    Raises:
        BlockingIOError: Another program holds it.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, f"another program is at work on {path}; wait until it has finished"
            ) from error
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
