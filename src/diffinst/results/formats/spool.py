"""Collects the records of a large text file on disk until all of them are known."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO


class Spool:
    """Records of text, each whole or not there; gone with the program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None  # made when there is something to keep
        self.count = 0

    def add(self, record: str) -> None:
        """Append a record.

        Raises:
            OSError: The disk is full; the record is not there then.
        """
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (kept open)
        begin = self._file.tell()
        try:
            self._file.write(record.encode("utf-8", "backslashreplace"))
            self._file.flush()
        except OSError:
            self._file.seek(begin)
            self._file.truncate()
            raise
        self.count += 1

    def copy_to(self, out: IO[bytes]) -> None:
        """Append all records to a file."""
        if self._file is not None:
            end = self._file.tell()
            self._file.seek(0)
            shutil.copyfileobj(self._file, out)
            self._file.seek(end)
