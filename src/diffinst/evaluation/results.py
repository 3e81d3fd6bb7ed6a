"""How do results become a file without a second copy of all of them in memory?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from diffinst.io.atomic import atomic_path


def write_results(path: Path, entries: Iterable[Mapping[str, object]]) -> int:
    """Write a JSON list, compactly and one entry a line, completely or not at all.

    Returns:
        How many entries there were.

    Raises:
        OSError: As in `atomic_path`.
        ValueError: An entry holds NaN or an infinity.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as stream:
        stream.write("[")
        for entry in entries:
            stream.write(",\n" if count else "\n")
            # Not `json.dump`: that writes token by token, which takes several times as long.
            stream.write(json.dumps(entry, separators=(",", ":"), allow_nan=False))
            count += 1
        stream.write("\n]\n")
    return count
