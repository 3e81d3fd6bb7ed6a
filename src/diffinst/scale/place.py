"""The folder that a run writes: of this machine, or behind a URI."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from diffinst.io.atomic import atomic_path, write_bytes
from diffinst.scale.remote import filesystem, is_uri, tried

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Place(Protocol):
    """Whole files by name (`run.json`, `parts/part-000000.parquet`)."""

    def names(self, folder: str) -> set[str]:
        """The files in a folder of it, without those that are being written."""

    def open(self, name: str) -> BinaryIO:
        """A file to read from anywhere in it; FileNotFoundError where there is none."""

    def read(self, name: str) -> bytes:
        """All of a file; FileNotFoundError where there is none."""

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write; once the block has succeeded it becomes the file, whole."""
        yield Path()

    def create(self, name: str, content: bytes) -> None:
        """Write a file unless it is there; where that cannot be asked for, the last one stays."""

    @property
    def local(self) -> Path | None:
        """The folder itself, where it is one of this machine."""


def place(out: str | Path) -> Place:
    """Where a run's files go."""
    text = plain(out)
    return _Remote(text.rstrip("/")) if is_uri(text) else _Folder(Path(text))


def absolute(out: str | Path) -> str:
    """The same for other processes and machines, whose current folder is another one."""
    text = plain(out)
    return text if is_uri(text) else os.path.abspath(text)


def plain(out: str | Path) -> str:
    """A folder's path without file://, of which a `Path` keeps one slash."""
    return re.sub("^file:/+", "/", str(out))


def write(where: Place, name: str, content: bytes) -> None:
    """A file, whole or not at all."""
    with where.writing(name) as temporary:
        temporary.write_bytes(content)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def local(self) -> Path:
        return self.folder

    def __str__(self) -> str:
        return str(self.folder)

    def names(self, folder: str) -> set[str]:
        inside = self.folder / folder
        if not inside.is_dir():
            return set()
        return {path.name for path in inside.iterdir() if not path.name.startswith(".")}

    def open(self, name: str) -> BinaryIO:
        return open(self.folder / name, "rb")

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with atomic_path(self.folder / name) as temporary:
            yield temporary

    def create(self, name: str, content: bytes) -> None:
        if not (self.folder / name).exists():  # who prepares a folder holds it
            write_bytes(self.folder / name, content)


class _Remote:
    """Object stores show a file when it is whole, so nothing has to be renamed."""

    local = None

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __str__(self) -> str:
        return self.uri

    def _at(self, name: str) -> tuple[AbstractFileSystem, str]:
        return filesystem(f"{self.uri}/{name}")

    def names(self, folder: str) -> set[str]:
        files, path = self._at(folder)
        files.invalidate_cache()
        try:
            found = tried(lambda: files.ls(path, detail=False))
        except FileNotFoundError:
            return set()
        return {Path(name).name for name in found if not str(name).endswith("/")}

    def open(self, name: str) -> BinaryIO:
        files, path = self._at(name)
        return cast(BinaryIO, tried(lambda: files.open(path, "rb")))

    def read(self, name: str) -> bytes:
        files, path = self._at(name)
        return bytes(tried(lambda: files.cat_file(path)))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="diffinst-") as folder:
            temporary = Path(folder) / Path(name).name
            yield temporary
            files, path = self._at(name)
            if hasattr(files, "makedirs"):
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
            tried(lambda: files.put_file(str(temporary), path))

    def create(self, name: str, content: bytes) -> None:
        files, path = self._at(name)
        if hasattr(files, "makedirs"):
            files.makedirs(path.rpartition("/")[0], exist_ok=True)

        def make() -> None:
            try:
                files.pipe_file(path, content, mode="create")
            except (NotImplementedError, TypeError):  # not known to every protocol
                files.pipe_file(path, content)
            except Exception:  # of each protocol's own kind, where the file is there
                files.invalidate_cache()
                if not files.exists(path):
                    raise

        tried(make)
