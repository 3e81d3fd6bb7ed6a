"""A file as far as it has come: NAME.part, and in NAME.part.json which version of it that is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

from diffinst.io.atomic import write_json
from diffinst.io.lock import alone_with

Progress = Callable[[int, "int | None"], None]  # bytes there, bytes in all if known

_CHUNK = 1 << 18
_DIGITS = {"md5": 32, "sha256": 64}


def checksum_of(path: str | Path, algorithm: str, progress: Progress | None = None) -> str:
    """The checksum of a file with its kind in front: "sha256:..." or "md5:..."."""
    path = Path(path)
    total, done, digest = path.stat().st_size, 0, hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    return f"{algorithm}:{digest.hexdigest()}"


@dataclass(frozen=True)
class Expected:
    """What is to be fetched, as far as the caller knows it."""

    url: str
    algorithm: str | None
    checksum: str | None
    size: int | None

    @classmethod
    def of(cls, url: str, checksum: str | None, size: int | None) -> Expected:
        """Check what was given.

        Raises:
            ValueError: The address, checksum or size is of the wrong form.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(f"cannot fetch {url!r}: give an http:// or https:// address")
        if size is not None and size < 0:
            raise ValueError(f"size {size} of {url}: give a number of bytes, 0 or more")
        if checksum is None:
            return cls(url, None, None, size)
        algorithm, _, digits = checksum.lower().partition(":")
        if not re.fullmatch(f"[0-9a-f]{{{_DIGITS.get(algorithm, 0)}}}", digits or "-"):
            raise ValueError(
                f"checksum {checksum!r} of {url}: give 'sha256:' and 64 or 'md5:' and 32 "
                "hexadecimal digits"
            )
        return cls(url, algorithm, f"{algorithm}:{digits}", size)

    def problem_of(self, path: Path, progress: Progress | None) -> str | None:
        """What is wrong with a file that claims to be complete."""
        given = path.stat().st_size
        if self.size is not None and given != self.size:
            return f"has {given} bytes, expected are {self.size}"
        if self.algorithm is None:
            return None
        return self.difference(checksum_of(path, self.algorithm, progress))

    def difference(self, given: str | None) -> str | None:
        """How a checksum differs from the expected one, if it does."""
        return None if given == self.checksum else f"has {given}, expected is {self.checksum}"


@dataclass(frozen=True)
class Version:
    """Which version of a file a server sends; `etag` is a strong one."""

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def mark(self) -> str | None:
        """What `If-Range` takes."""
        return self.etag or self.modified

    def may_be(self, other: Version) -> bool:
        """Whether nothing that is known of both tells them apart."""
        pairs = ((self.etag, other.etag), (self.total, other.total))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    @classmethod
    def read(cls, file: Path) -> Version | None:
        """The note of an earlier attempt, if it can be used."""
        try:
            note = json.loads(file.read_bytes())
            return cls(**{field.name: note[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError):
            return None  # as for bytes of unknown origin


class Part:
    """A file as far as it has come, with its checksum.

    Attributes:
        path: NAME.part.
        offset: Bytes there.
        reached: The most bytes that were ever there since the start.
        version: What the server said about the file these bytes are from.
        pieces: Whether they come from more than one answer.
        replaced: Whether pieces that did not fit together were thrown away already.
    """

    def __init__(self, path: Path, file: FileIO, want: Expected, progress: Progress | None) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")
        self._file = file
        self._algorithm = want.algorithm
        self.offset = os.fstat(file.fileno()).st_size
        version = Version.read(self._note)
        # Another address may have another version; a checksum, if there is one, will tell.
        self.version = version if version is not None and version.url == want.url else None
        self._digest = self._of_bytes_there(progress)
        self.reached = self.offset
        self.pieces = self.offset > 0
        self.replaced = False

    @classmethod
    @contextmanager
    def of(cls, path: Path, want: Expected, progress: Progress | None) -> Iterator[Part]:
        """Hold what has arrived of `path` while the block runs; kept whatever happens, if any.

        Raises:
            BlockingIOError: Another program fetches it.
        """
        name = path.with_name(f"{path.name}.part")
        with alone_with(name), FileIO(name, "a+") as file:  # unbuffered: what arrives is in it
            part = cls(name, file, want, progress)
            try:
                yield part
            finally:
                file.close()
                if name.exists() and not name.stat().st_size:
                    part.remove()

    def _of_bytes_there(self, progress: Progress | None) -> hashlib._Hash | None:
        if self._algorithm is None:
            return None
        digest, done = hashlib.new(self._algorithm), 0
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, None)
        return digest

    @property
    def can_go_on(self) -> bool:
        """Whether anything would tell if the rest did not belong to the bytes there."""
        marked = self.version is not None and self.version.mark is not None
        return marked or self._algorithm is not None

    @property
    def checksum(self) -> str | None:
        """Of the bytes there, in the form and kind that is expected."""
        return None if self._digest is None else f"{self._algorithm}:{self._digest.hexdigest()}"

    def restart(self, version: Version | None) -> None:
        """Throw the bytes away and note the version that is to come."""
        self._file.truncate(0)
        self.offset, self.pieces = 0, False
        self._digest = None if self._algorithm is None else hashlib.new(self._algorithm)
        self.note(version)

    def note(self, version: Version | None) -> None:
        """Remember the version for the next start."""
        self.version = version
        if version is None:
            self._note.unlink(missing_ok=True)
        else:
            write_json(self._note, asdict(version))

    def append(self, chunk: bytes) -> None:
        """Add bytes; of a chunk the disk has no room for, those that fit stay."""
        rest = memoryview(chunk)
        try:
            while rest:
                count = self._file.write(rest)
                if self._digest is not None:
                    self._digest.update(rest[:count])
                self.offset += count
                self.reached = max(self.reached, self.offset)
                rest = rest[count:]
        except OSError as error:
            raise self._explained(error) from error

    def remove(self) -> None:
        """Delete it: these bytes are of no use."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the complete file its name.

        Raises:
            BlockingIOError: The file is not what was written here.
            OSError: It cannot be written.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size != self.offset:  # a file system without locks
            raise BlockingIOError(
                errno.EAGAIN,
                f"{self.path} has {size} bytes, {self.offset} were written: another program was at "
                f"work on {path}; end it, remove {self.path} and start again",
            )
        try:
            os.fsync(self._file.fileno())  # else a power cut could leave the name on an empty file
        except OSError as error:
            raise self._explained(error) from error
        self._file.close()  # Windows renames no open file
        os.replace(self.path, path)
        self._note.unlink(missing_ok=True)

    def _explained(self, error: OSError) -> OSError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "the disk (or your quota) is full" if full else f"{error.strerror or error}"
        return OSError(
            error.errno,
            f"cannot write {self.path}: {problem}; {self.offset} bytes are kept there; "
            f"{'free some space' if full else 'check its permissions'} and start again",
        )
