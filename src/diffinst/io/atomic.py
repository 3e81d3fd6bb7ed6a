"""Writes a file completely or not at all: under a temporary name first, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffinst.io.disk import FULL, write_error

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp(\..*)?")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` only if the block succeeds.

    Folders above it are created. The temporary name is hidden, keeps the suffix (some writers
    choose the format by it) and does not exist yet: the block has to write it. If the block fails
    or is interrupted it is removed and `path` stays as it was; only a killed process leaves it
    behind, for `remove_unfinished`. Where `path` is a link, the file it points to is replaced.

    Args:
        path: the file to write.

    Raises:
        OSError: the disk is full (also when the block says so), the folder cannot be made or
            written, or `path` is a folder; of the type that belongs to its `errno`.
        FileNotFoundError: the block ended without writing the temporary file.

    Example:
        >>> with atomic_path("results/scores.csv") as temporary:
        ...     _ = temporary.write_text("image,score")
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, f"cannot write {target}: it is a folder; give the name of a file"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, target) from error
    mark = secrets.token_hex(4)
    # Cut: a name holds 255 bytes, and a character takes up to 4 of them in UTF-8.
    temporary = target.with_name(f".{target.stem[:32]}.{mark}.tmp{target.suffix[:16]}")
    try:
        try:
            yield temporary
        except OSError as error:
            refused = error.errno in _FORBIDDEN and error.filename == str(temporary)
            if error.errno in FULL or refused:
                raise _explained(error, target) from error
            raise
        _replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` completely or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are, completely or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, obj: object) -> None:
    """Write `obj` as indented UTF-8 JSON, completely or not at all.

    File names that are no UTF-8 stay what they are for Python: the bytes that are none become
    escapes of lone surrogates, which `json.loads` gives back as `os.fsencode` takes them.

    Args:
        path: the file to write.
        obj: dicts with string keys, lists, tuples, str, int, finite float, bool, None.

    Raises:
        TypeError: `obj` holds something that JSON has no form for (a tensor, a Path).
        ValueError: `obj` holds NaN or an infinity, which most readers refuse, or itself.
        OSError: as in `atomic_path`.
    """
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise TypeError(
            f"cannot write {path}: {error}; convert it to dict, list, str, int, float or None"
        ) from error
    except ValueError as error:
        raise ValueError(f"cannot write {path}: {error}; put None (null) in its place") from error
    write_bytes(path, f"{text}\n".encode("utf-8", "backslashreplace"))


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: Need not exist. Only for who holds it (`lock.alone_in`): the temporary files of
            processes that are at work look the same. Folders in it are left as they are.

    Returns:
        The removed files.
    """
    found = sorted(folder.glob(".*.tmp*"))
    left = [path for path in found if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def put_in_place(temporary: Path, target: Path) -> None:
    """Give a complete file its name; a file of that name is replaced."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
    os.replace(temporary, target)


def _replace(temporary: Path, target: Path) -> None:
    if not temporary.exists():
        raise FileNotFoundError(
            errno.ENOENT,
            f"nothing was written for {target}: the block has to write the path that "
            f"`atomic_path` yields ({temporary})",
        )
    try:
        put_in_place(temporary, target)
    except OSError as error:
        raise _explained(error, target) from error


def _explained(error: OSError, target: Path) -> OSError:
    left = "the previous file is intact" if target.exists() else "no partial file is left"
    what = f"{target.name} in {target.parent}"
    return write_error(error, what, left, "there, or choose another folder")
