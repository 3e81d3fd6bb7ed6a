"""What images a run is asked for: folders, globs, list files, Parquet columns, URIs; streamed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffinst.io.image_error import ImageReadError
from diffinst.io.listing import IMAGE_SUFFIXES, images_below, is_pattern, matching, missing, named
from diffinst.scale.remote import filesystem, is_uri, reason, tried

LIST_SUFFIXES = (".txt", ".lst")
PARQUET_SUFFIXES = (".parquet", ".pq")
COLUMNS = ("path", "uri", "url", "file_name", "image")
"""Names of a Parquet column of paths that are looked for where none is given."""


class Entry(NamedTuple):
    """An image as it was listed.

    Attributes:
        path: Relative to the root, absolute where it lies elsewhere, or a URI.
        bytes: Of the file; None: the listing does not say.
        time: When it was changed, in nanoseconds; None: the same.
    """

    path: str
    bytes: int | None
    time: int | None


@dataclass(frozen=True)
class Inputs:
    """What was asked for, and the folder that relative paths start from."""

    asked: tuple[str, ...]
    root: str

    @classmethod
    def of(cls, images: Sequence[str | Path] | str | Path) -> Inputs:
        """Check what is asked for, before anything is listed.

        Raises:
            ImageReadError: A name is empty or leads nowhere, or nothing is given.
            ValueError: A Parquet file or a URI that cannot be read here; says what to install.
        """
        given = [images] if isinstance(images, str | Path) else list(images)
        if not given:
            raise ImageReadError("no images are given; name a folder, a list file or a pattern")
        asked, bases = [], []
        for one in given:
            text = str(one)
            if is_uri(text):
                filesystem(text)
                asked.append(text)
                continue
            path = Path(os.path.abspath(named(text)))
            asked.append(str(path))
            bases.append(_base(path))
        return cls(tuple(asked), os.path.commonpath(bases) if bases else "")

    def __iter__(self) -> Iterator[Entry]:
        """All images, in a fixed order: that of the arguments, of the lists, of sorted names."""
        for text in self.asked:
            if is_uri(text):
                yield from _of_uri(text)
                continue
            path, column = _parquet(text)
            if column is not None or path.suffix.lower() in PARQUET_SUFFIXES:
                listed = _column(path, column)
                yield from (self._listed(line, path.parent) for line in listed)
            elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
                yield from (self._listed(line, path.parent) for line in _lines(path))
            elif path.is_dir():
                yield from map(self._file, images_below(path))
            elif path.exists():
                yield self._file(str(path))
            else:
                yield from map(self._file, map(str, matching(path)))

    def _listed(self, line: str, folder: Path) -> Entry:
        if is_uri(line):
            return Entry(line, None, None)  # asking for each would take days
        return self._file(os.path.normpath(os.path.join(folder, line)))

    def _file(self, path: str) -> Entry:
        inside = path.startswith(self.root.rstrip(os.sep) + os.sep)
        name = os.path.relpath(path, self.root) if inside else path
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # of a list: its row will say so
            return Entry(name, None, None)
        return Entry(name, status.st_size, status.st_mtime_ns)


def _base(path: Path) -> str:
    """The folder that an argument's images lie in, or most of them."""
    if path.is_dir():
        return str(path)
    text = str(path)
    if path.exists() or _parquet(text)[1] is not None:
        return str(path.parent)
    if is_pattern(path):
        parts = path.parts
        fixed = next(i for i, part in enumerate(parts) if is_pattern(Path(part)))
        return str(Path(*parts[:fixed]))
    raise ImageReadError(missing(path))


def _parquet(text: str) -> tuple[Path, str | None]:
    """FILE.parquet:COLUMN as its two parts; what is no such thing has no column."""
    path, _, column = text.rpartition(":")
    if path.lower().endswith(PARQUET_SUFFIXES) and column:
        return Path(path), column
    return Path(text), None


def _column(path: Path, column: str | None) -> Iterator[str]:
    from diffinst.scale.rows import need_pyarrow

    need_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except FileNotFoundError as error:
        raise ImageReadError(missing(path)) from error
    except (pa.ArrowException, OSError) as error:
        raise ImageReadError(
            f"{path}: cannot be read as Parquet ({reason(error)}); write it again, or give a "
            ".txt file with a path a line"
        ) from error
    if column is None:
        column = next((name for name in COLUMNS if name in names), None)
    if column is None or column not in names:
        wrong = f"no column '{column}'" if column else f"none of the columns {', '.join(COLUMNS)}"
        raise ImageReadError(
            f"{path}: has {wrong}; there are {', '.join(names)}: name one, {path}:{names[0]}"
        )
    empty = True
    for batch in file.iter_batches(columns=[column], use_threads=False):
        for value in batch.column(0).to_pylist():
            if not isinstance(value, str | None):
                raise ImageReadError(f"{path}: column {column} holds no text; name another one")
            if value:
                empty = False
                yield value
    if empty:
        raise ImageReadError(f"{path}: column {column} holds no path; name another one")


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="strict", newline=None) as file:
            for line in file:
                text = line.rstrip("\n")
                if "\0" in text:
                    raise ImageReadError(f"{path}: is no text file; give a path a line")
                if text.strip():
                    yield text
    except UnicodeDecodeError as error:
        raise ImageReadError(
            f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); save the list as "
            "UTF-8, a path a line"
        ) from error
    except OSError as error:
        raise ImageReadError(
            f"{path}: the list cannot be read ({error.strerror}); check its permissions"
        ) from error


def _of_uri(uri: str) -> Iterator[Entry]:
    """One object, or all below a prefix or a pattern; sizes and times as the listing gives them."""
    files, path = filesystem(uri)
    if uri.partition("?")[0].lower().endswith(IMAGE_SUFFIXES) and not any(s in path for s in "*["):
        yield Entry(uri, None, None)
        return
    try:
        if any(sign in path for sign in "*?["):
            found = tried(lambda: files.glob(path, detail=True))
        else:
            found = tried(lambda: files.find(path, detail=True))
    except Exception as error:  # of each protocol's own kind
        raise ImageReadError(
            f"{uri}: cannot be listed ({reason(error)}); check the address and your access"
        ) from error
    if not found:
        raise ImageReadError(f"{uri}: nothing is there; check the address and your access")
    for name in sorted(found):
        about = found[name]
        if name.lower().endswith(IMAGE_SUFFIXES) and about.get("type") != "directory":
            full = name if is_uri(name) else _address(name, uri, path)
            size = about.get("size")
            changed = about.get("LastModified", about.get("mtime"))
            stamp = changed.timestamp() if hasattr(changed, "timestamp") else changed
            time = None if not isinstance(stamp, int | float) else int(stamp * 1e9)
            yield Entry(full, size if isinstance(size, int) else None, time)


def _address(name: str, uri: str, path: str) -> str:
    """The address of a file that was listed, with the host and the root of what was asked.

    Args:
        name: As the file system calls it.
        uri: What was asked: an address of a folder, or a pattern.
        path: The same as the file system calls it.

    Example:
        >>> _address("/dir/a.png", "sftp://host/dir", "/dir")
        'sftp://host/dir/a.png'
    """
    sign = re.search(r"[*?[]", path)
    pattern = "" if sign is None else path[path.rfind("/", 0, sign.start()) + 1 :]
    protocol = uri.partition("://")[0] + "://"
    base, head = (text.removesuffix(pattern).rstrip("/") for text in (path, uri))
    if not uri.endswith(pattern) or not name.startswith(base):
        return protocol + name
    return (head if is_uri(head) else protocol) + name[len(base) :]
