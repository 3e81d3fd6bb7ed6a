"""Is there room on the disk?"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_UNITS = ("B", "kB", "MB", "GB", "TB")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where it is to go; need not exist yet.
        needed: Bytes.
        what: Named in the error.

    Raises:
        OSError: Less is free; of errno ENOSPC.
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


def readable(count: int) -> str:
    """A number of bytes for people: 999 B, 1.0 kB, 19.3 GB."""
    size, unit = float(count), 0
    while size >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} B"
