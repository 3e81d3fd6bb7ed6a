"""Keeps what was read of a large dataset, so that it is read once and shared by all processes.

Below `folder()` lies one safetensors file for each split, with the columns of `Packed`. It is
mapped, not copied (safetensors' own functions for numpy copy what they read), once its checksums
were compared: that reads all of it, about 4 GB a second, and keeps nothing, while a byte that is
wrong in it would be a wrong mask, or a crash. Whatever is wrong with the cache is logged and the
dataset read anew; nothing is ever written beside the user's own files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffinst.datasets.packed import Array, Contents, Packed
from diffinst.io.atomic import atomic_path
from diffinst.io.places import cache_folder

logger = logging.getLogger(__name__)

FORMAT = 3  # goes up with every change of `Packed` and of what reading leaves out or refuses
SMALL = 20_000_000  # bytes of annotations that are read faster than a user would notice
FEW_FILES = 2_000  # images, where each has annotations and size in files of their own

_CHUNK = 1 << 20  # bytes
_KEY = "diffinst"  # of the metadata: all of `Contents` that is no column
_KINDS = {"BOOL": "?", "U8": "u1", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


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
        file = cache_folder() / "annotations" / f"{name}-{_digest(before, str(FORMAT))}.safetensors"
    except RuntimeError as error:  # there is no home folder
        logger.warning("nothing is cached: %s", error)
        return read()
    if file.exists():
        try:
            return _open(file)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("%s is damaged (%s): reading %s again", file, error, source)
    contents = read()
    if stamp() != before:
        return contents
    try:
        _save(contents, file)
        for old in file.parent.glob(f"{name}-*"):
            if old != file:
                old.unlink(missing_ok=True)
        return _open(file)  # mapped: what was built on the way can go
    except (OSError, ValueError, SafetensorError) as error:
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
    said = {f.name: getattr(contents, f.name) for f in fields(Contents) if f.name != "packed"}
    said["crc32"] = {name: zlib.crc32(array.data) for name, array in arrays.items()}
    with atomic_path(file) as temporary:
        save_file(arrays, temporary, metadata={_KEY: json.dumps(said)})


def _open(file: Path) -> Contents:
    """Map a file after its checksums were compared.

    Raises:
        ValueError: It is damaged.
        SafetensorError: Its size or its header is wrong.
    """
    arrays: dict[str, Array] = {}
    with safe_open(file, framework="numpy") as opened:
        said = json.loads(opened.metadata()[_KEY])
        columns = {name: opened.get_slice(name) for name in opened.offset_keys()}
        if columns.keys() != {field.name for field in fields(Packed)}:
            raise ValueError("its columns are others")
        kinds = [(np.dtype(_KINDS[c.get_dtype()]), tuple(c.get_shape())) for c in columns.values()]
    sizes = [kind.itemsize * math.prod(shape) for kind, shape in kinds]
    offset = file.stat().st_size - sum(sizes)  # the columns lie one behind the other, to the end
    checksums = said.pop("crc32")
    with file.open("rb") as source:
        for name, size, (kind, shape) in zip(columns, sizes, kinds, strict=True):
            source.seek(offset)
            checksum = 0
            for start in range(0, size, _CHUNK):
                checksum = zlib.crc32(source.read(min(_CHUNK, size - start)), checksum)
            if checksum != checksums[name]:
                raise ValueError(f"the checksum of '{name}' differs")
            mapped = np.memmap(file, kind, "r", offset, shape) if size else np.zeros(shape, kind)
            arrays[name] = mapped
            offset += size
    texts = {name: tuple(v) if isinstance(v, list) else v for name, v in said.items()}
    return Contents(packed=Packed(**arrays), **texts)  # type: ignore[arg-type]
