"""Keeps what was read of a large dataset, so that it is read once and shared by all processes.

Below `folder()` lies one file for each split: a line of JSON, then the columns of `Packed` as they
are in memory. It is mapped, not read. Whatever is wrong with the cache is logged and the dataset
read anew; nothing is ever written beside the user's own files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from diffinst.datasets.contents import Contents
from diffinst.datasets.packed import Array, Packed
from diffinst.io.atomic import atomic_path

logger = logging.getLogger(__name__)

FORMAT = 2  # goes up with every change of `Packed` and of what reading leaves out or refuses
SMALL = 20_000_000  # bytes of annotations that are read faster than a user would notice
FEW_FILES = 2_000  # images, where each has annotations and size in files of their own

_ALIGNED = 64
_CHUNK = 1 << 20


def folder() -> Path:
    """DIFFINST_CACHE, else diffinst/ in XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("DIFFINST_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffinst"


def cached(
    source: Path, part: str, stamp: Callable[[], str], read: Callable[[], Contents]
) -> Contents:
    """What `read` gives, from the cache if it was read before and has not changed since.

    Args:
        source: What is read; its absolute path is part of the key.
        part: Which split, where one file holds several.
        stamp: Tells the state of the source; taken again after reading, for it may have changed
            meanwhile.
        read: Reads it.
    """
    before = stamp()
    name = _digest(str(source.absolute()), part)
    try:
        file = folder() / "annotations" / f"{name}-{_digest(before, str(FORMAT))}.bin"
    except RuntimeError as error:  # there is no home folder
        logger.warning("nothing is cached: %s", error)
        return read()
    if file.exists():
        try:
            return _open(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s): reading %s again", file, error, source)
    contents = read()
    if stamp() != before:
        return contents
    try:
        _save(contents, file)
        for old in file.parent.glob(f"{name}-*.bin"):
            if old != file:
                old.unlink(missing_ok=True)
        return _open(file)  # mapped: what was built on the way can go
    except (OSError, ValueError) as error:
        logger.warning("%s is not cached: %s", source, error)
        return contents


def stamp(file: Path) -> str:
    """The state of one file."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def _save(contents: Contents, file: Path) -> None:
    arrays = {name: np.ascontiguousarray(a) for name, a in contents.packed.arrays().items()}
    columns: dict[str, tuple[str, tuple[int, ...], int]] = {}
    checksum, end = 0, 0
    for name, array in arrays.items():
        columns[name] = (array.dtype.str, array.shape, end)
        checksum = zlib.crc32(_padded(array), zlib.crc32(_bytes(array), checksum))
        end += array.nbytes + len(_padded(array))
    header = {
        "columns": columns,
        "bytes": end,
        "crc32": checksum,
        "classes": contents.classes,
        "category_ids": contents.category_ids,
        "federated": contents.federated,
        "frequency": contents.frequency,
        "left_out": contents.left_out,
        "notes": contents.notes,
    }
    line = json.dumps(header).encode()
    line += b" " * (-(len(line) + 1) % _ALIGNED) + b"\n"
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        out.write(line)
        for array in arrays.values():
            out.write(_bytes(array))
            out.write(_padded(array))


def _bytes(array: Array) -> memoryview | bytes:
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _padded(array: Array) -> bytes:
    return bytes(-array.nbytes % _ALIGNED)


def _open(file: Path) -> Contents:
    """Map a file after its checksum was compared.

    Raises:
        ValueError: It is damaged.
    """
    checksum = 0
    with file.open("rb") as source:
        line = source.readline()
        header = json.loads(line)
        while chunk := source.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    if checksum != header["crc32"] or file.stat().st_size != len(line) + header["bytes"]:
        raise ValueError("its checksum differs")
    columns = header["columns"]
    if columns.keys() != {field.name for field in fields(Packed)}:
        raise ValueError("its columns are others")
    arrays = {}
    for name, (kind, shape, offset) in columns.items():
        size = int(np.prod(shape))
        where = len(line) + offset
        arrays[name] = (
            np.memmap(file, np.dtype(kind), "r", where, tuple(shape))
            if size
            else np.zeros(shape, kind)
        )
    return Contents(
        packed=Packed(**arrays),
        classes=tuple(header["classes"]),
        category_ids=tuple(header["category_ids"]),
        federated=header["federated"],
        frequency=tuple(header["frequency"]),
        left_out=tuple(header["left_out"]),
        notes=tuple(header["notes"]),
    )
