"""Unpacks zip archives: only below the folder meant for it, completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from diffinst.io.disk import check_space, write_error

_CHUNK = 1 << 20  # bytes
_ENCRYPTED = 1  # bit of ZipInfo.flag_bits
_ANOTHER = "unpack it with another program"


class ArchiveError(ValueError):
    """An archive is damaged, dangerous or not the one meant; the message says what to do."""


def unpack(
    archive: str | Path,
    target: str | Path,
    *,
    member: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Unpack a file or a folder of a zip archive.

    It is made beside `target`, as .NAME.unpacking, and renamed once it is complete. What an
    interrupted run has left there is used again, if it is what the archive holds, and removed if
    it is not.

    Args:
        archive: The .zip file.
        target: What the file or folder is to become; must not exist.
        member: Path inside the archive; "" is all of it.
        progress: Called with the bytes done and in all.

    Returns:
        `target`.

    Raises:
        ArchiveError: The archive is damaged or encrypted, would write outside `target`, or holds
            no such member. Nothing has been written, unless the damage is in the middle.
        FileExistsError: `target` exists.
        OSError: There is too little room, or no permission.

    Example:
        >>> unpack("val2017.zip", "coco/val2017", member="val2017")  # doctest: +SKIP
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise FileExistsError(f"cannot unpack {archive} to {target}: it exists; move it away first")
    temporary = target.with_name(f".{target.name}.unpacking")
    with opened(archive) as content:
        entries = {temporary / path: info for path, info in _below(content, archive, member)}
        total = sum(info.file_size for info in entries.values())
        there = sum(path.stat().st_size for path in entries if path.is_file())
        check_space(target.parent, total - there, f"unpacking {archive}")
        done = 0
        for path, info in entries.items():
            if info.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            elif not _holds(path, info):
                try:
                    _extract(content, info, path)
                except OSError as error:
                    left = f"what is unpacked stays in {temporary}"
                    raise write_error(error, str(path), left, "and start again") from error
            done += info.file_size
            if progress is not None:
                progress(done, total)
    _remove_others(temporary, entries)
    if hasattr(os, "sync"):
        os.sync()  # one for all files; else a power cut could leave the name on empty ones
    os.replace(temporary, target)
    return target


@contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose names are safe; damage found in the block is explained, too.

    Raises:
        ArchiveError: It is no zip archive, damaged, or has names that lead outside.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            problem = _problem(content.infolist())
            if problem is not None:
                raise ArchiveError(f"{archive}: {problem}")
            yield content
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArchiveError(
            f"{archive}: damaged, or no zip archive ({error}); remove it and fetch it again"
        ) from error
    except NotImplementedError as error:
        raise ArchiveError(f"{archive}: {error}; {_ANOTHER}") from error


def _problem(entries: list[zipfile.ZipInfo]) -> str | None:
    """Names that lead outside, links (they may), encryption, or two files of one name."""
    outside = "lead outside the folder; do not use this archive"
    for info in entries:
        # What zipfile makes of a name depends on the system; the raw one may hide a NUL.
        for name in (info.filename, info.orig_filename):
            parts = name.rstrip("/").split("/")
            if {"", ".", ".."} & set(parts) or any(sign in name for sign in ("\\", ":", "\0")):
                return f"the name {name!r} in it may {outside}"
        if stat.S_ISLNK(info.external_attr >> 16):
            return f"{info.filename!r} in it is a link, which may {outside}"
        if info.flag_bits & _ENCRYPTED:
            return f"it is encrypted; {_ANOTHER}"
    names = Counter(info.filename.rstrip("/").casefold() for info in entries)
    twice = next((name for name, count in names.items() if count > 1), None)
    return None if twice is None else f"holds {twice!r} twice; {_ANOTHER}"


def _below(
    content: zipfile.ZipFile, archive: Path, member: str
) -> Iterator[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """The entries of a member, with their paths relative to it."""
    paths = [(PurePosixPath(info.filename), info) for info in content.infolist()]
    found = [(path, info) for path, info in paths if path.is_relative_to(member)]
    if not found:
        top = sorted({path.parts[0] for path, _ in paths})
        there = f"it holds {', '.join(top[:5]) or 'nothing'}"
        raise ArchiveError(f"{archive}: no '{member}' in it; {there}; is it the right archive?")
    return ((path.relative_to(member), info) for path, info in found)


def _holds(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file is there already and is what the archive holds."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC


def _extract(content: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(info) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)  # zipfile checks size and CRC


def _remove_others(folder: Path, wanted: Iterable[Path]) -> None:
    """Delete what lies below a folder and is neither wanted nor above something wanted."""
    kept = {above for path in wanted for above in (path, *path.parents)}
    # By identity: some file systems give a name back in another form than it was written in.
    marks = {(at.st_dev, at.st_ino) for at in (path.stat() for path in kept)}
    for top, folders, files in os.walk(folder, topdown=False):
        for path in (Path(top, name) for name in (*files, *folders)):
            at = path.lstat()
            if (at.st_dev, at.st_ino) not in marks:
                path.rmdir() if stat.S_ISDIR(at.st_mode) else path.unlink()
