"""Unpacks zip archives: only below the folder meant for it, completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from diffinst.io.disk import check_space

_CHUNK = 1 << 20
_ENCRYPTED = 1  # bit of ZipInfo.flag_bits


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
        entries = [(info, temporary / path) for info, path in _below(content, archive, member)]
        total = sum(info.file_size for info, _ in entries)
        there = sum(path.stat().st_size for _, path in entries if path.is_file())
        check_space(target.parent, total - there, f"unpacking {archive}")
        done = 0
        for info, path in entries:
            if info.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            elif not _holds(path, info):
                try:
                    _extract(content, info, path)
                except OSError as error:
                    raise OSError(
                        error.errno,
                        f"cannot write {path}: {error.strerror or error}; what is unpacked stays "
                        f"in {temporary}: free space or permit it, and start again",
                    ) from error
            done += info.file_size
            if progress is not None:
                progress(done, total)
    _remove_others(temporary, {path for _, path in entries})
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
            _check_names(content, archive)
            yield content
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArchiveError(
            f"{archive}: damaged, or no zip archive ({error}); remove it and fetch it again"
        ) from error
    except NotImplementedError as error:
        raise ArchiveError(f"{archive}: {error}; unpack it with another program") from error


def unpacked_size(archive: Path, member: str = "") -> int:
    """Bytes that a file or folder of an archive takes once unpacked."""
    with opened(archive) as content:
        return sum(info.file_size for info, _ in _below(content, archive, member))


def _extract(content: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(info) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)  # zipfile checks size and CRC


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    """Delete what lies below a folder and is neither wanted nor above something wanted."""
    kept = {above for path in wanted for above in (path, *path.parents)}
    # By identity: some file systems give a name back in another form than it was written in.
    marks = {(at.st_dev, at.st_ino) for at in (path.stat() for path in kept)}
    for top, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(top, name)
            at = path.lstat()
            if (at.st_dev, at.st_ino) in marks:
                continue
            if name in folders and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        folders[:] = [name for name in folders if Path(top, name).is_dir()]


def _check_names(content: zipfile.ZipFile, archive: Path) -> None:
    """Refuse names that lead outside, links (they may), and two files of one name."""
    for info in content.infolist():
        # What zipfile makes of a name depends on the system; the raw one may hide a NUL.
        for name in (info.filename, info.orig_filename):
            parts = name.rstrip("/").split("/")
            odd = not name or any(sign in name for sign in ("\\", ":", "\0"))
            if odd or {"", ".", ".."} & set(parts):
                raise ArchiveError(
                    f"{archive}: the name {name!r} in it may lead outside the folder; do not use "
                    "this archive"
                )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(
                f"{archive}: {info.filename!r} in it is a link, which may lead outside the folder; "
                "do not use this archive"
            )
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"{archive}: it is encrypted; unpack it with another program")
    names = Counter(info.filename.rstrip("/").casefold() for info in content.infolist())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ArchiveError(f"{archive}: holds {twice[0]!r} twice; unpack it with another program")


def _below(
    content: zipfile.ZipFile, archive: Path, member: str
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The entries of a member, with their paths relative to it."""
    wanted = PurePosixPath(member)
    found = []
    for info in content.infolist():
        path = PurePosixPath(info.filename)
        if path.is_relative_to(wanted):
            found.append((info, path.relative_to(wanted)))
    if not found:
        top = sorted({PurePosixPath(name).parts[0] for name in content.namelist()})
        there = f"it holds {', '.join(top[:5]) or 'nothing'}"
        raise ArchiveError(f"{archive}: no '{member}' in it; {there}; is it the right archive?")
    return found


def _holds(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file is there already and is what the archive holds."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC
