"""The user's folders that programs share."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """The folder for what can be made again; not made here.

    The environment variable DIFFINST_CACHE names it. Without that it is `diffinst` in
    XDG_CACHE_HOME or ~/.cache, and on other systems where their caches lie.

    Raises:
        RuntimeError: There is no home folder.
    """
    if named := os.environ.get("DIFFINST_CACHE"):
        return Path(named)
    folder = user_cache_path("diffinst", appauthor=False)
    if not folder.is_absolute():  # some versions leave "~" as it is
        raise RuntimeError("there is no home folder; set DIFFINST_CACHE to a folder for caches")
    return folder
