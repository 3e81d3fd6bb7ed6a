"""Is a path a file with an end? Reading a pipe or a device may wait, or go on, for ever."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Refuse pipes and devices; links to files are files, and folders refuse to be opened anyway.

    Raises:
        OSError: It is one, or is not there; `strerror` says which.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
