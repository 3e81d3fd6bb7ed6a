"""Room on the disk, and the error that says that something cannot be written there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Of errors for want of room on the disk or in the user's quota."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where it is to go; need not exist yet.
        needed: Bytes.
        what: Named in the error.

    Raises:
        OSError: There is less; of errno ENOSPC.
    """
    free = free_space(folder)
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {readable(needed)} in {folder}, where {readable(free)} are free; free "
            f"{readable(needed - free)} there, or choose another folder",
        )


def free_space(folder: Path) -> int:
    """Bytes free where `folder` lies or would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def write_error(error: OSError, what: str, left: str, then: str) -> OSError:
    """An error that explains why something cannot be written.

    Args:
        error: What the system said; the new one has its errno, and so its type.
        what: Cannot be written.
        left: What is there now.
        then: What else to do; follows "free some space" or "check its permissions".
    """
    full = error.errno in FULL
    problem = "the disk (or your quota) is full" if full else error.strerror or error
    advice = "free some space" if full else "check its permissions"
    return OSError(error.errno, f"cannot write {what}: {problem}; {left}; {advice} {then}")


@contextmanager
def writing(what: str | Path, left: str = "no partial file is left") -> Iterator[None]:
    """Explain a full disk: say what could not be written, and what to do.

    `atomic.atomic_path` does so for a file of its own; this is for whatever else writes.

    Args:
        what: Is written inside.
        left: What is there once it has failed.

    Raises:
        OSError: The disk or the user's quota is full; of the errno of the system's own error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.strerror == os.strerror(error.errno):  # not yet explained
            raise write_error(error, str(what), left, "there, or choose another folder") from error
        raise


def readable(count: int) -> str:
    """A number of bytes for people: 999 B, 1.0 kB, 19.3 GB."""
    size, unit = float(count), 0
    while size >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} B"
