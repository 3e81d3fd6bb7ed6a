"""A file as far as it has arrived: NAME.part, and in NAME.part.json which version of it that is."""

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

from diffinst.io.atomic import put_in_place, write_json
from diffinst.io.disk import write_error
from diffinst.io.lock import alone_with

Progress = Callable[[int, "int | None"], None]  # bytes there, bytes in all if known

_CHUNK = 1 << 18
_CHECKSUM = re.compile("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


def checksum_of(path: str | Path, algorithm: str, progress: Progress | None = None) -> str:
    """The checksum of a file with its kind in front: "sha256:..." or "md5:..."."""
    with FileIO(path) as file:
        digest = _digest_of(file, algorithm, progress, os.fstat(file.fileno()).st_size)
    return f"{algorithm}:{digest.hexdigest()}"


def _digest_of(
    file: FileIO, algorithm: str, progress: Progress | None, total: int | None = None
) -> hashlib._Hash:
    digest, done = hashlib.new(algorithm), 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return digest


@dataclass(frozen=True)
class Expected:
    """What is to be fetched, as far as the caller knows it.

    Attributes:
        url: http:// or https://.
        checksum: "sha256:..." or "md5:..." in lower case, or None.
        size: In bytes, or None.

    Raises:
        ValueError: One of them is of the wrong form.
    """

    url: str
    checksum: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"cannot fetch {self.url!r}: give an http:// or https:// address")
        if self.size is not None and self.size < 0:
            raise ValueError(f"size {self.size} of {self.url}: give a number of bytes, 0 or more")
        if self.checksum is not None and not _CHECKSUM.fullmatch(self.checksum):
            raise ValueError(
                f"checksum {self.checksum!r} of {self.url}: give 'sha256:' and 64 or 'md5:' and 32 "
                "hexadecimal digits"
            )

    @property
    def algorithm(self) -> str | None:
        """Of the checksum."""
        return None if self.checksum is None else self.checksum.partition(":")[0]

    def problem_of(self, path: Path, progress: Progress | None) -> str | None:
        """What is wrong with a file that claims to be complete."""
        given = path.stat().st_size
        if self.size not in (None, given):
            return f"has {given} bytes, expected are {self.size}"
        if self.algorithm is None:
            return None
        return self.difference(checksum_of(path, self.algorithm, progress))

    def difference(self, given: str | None) -> str | None:
        """How a checksum differs from the expected one, if it does."""
        return None if given == self.checksum else f"has {given}, expected is {self.checksum}"


@dataclass(frozen=True)
class Version:
    """Which version of a file a server sends; `etag` is a strong one, `total` in bytes."""

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


class PartialFile:
    """A file as far as it has arrived, with its checksum.

    Attributes:
        path: NAME.part.
        want: What the file is to be.
        offset: Bytes there.
        reached: The most bytes that were ever there since the start.
        version: What the server said about the file these bytes are from.
        pieces: Whether they come from more than one answer.
        replaced: Whether pieces that did not fit together were thrown away already.
    """

    @classmethod
    @contextmanager
    def of(cls, path: Path, want: Expected, progress: Progress | None) -> Iterator[PartialFile]:
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

    def __init__(self, path: Path, file: FileIO, want: Expected, progress: Progress | None) -> None:
        self.path, self.want = path, want
        self._file, self._note = file, path.with_name(f"{path.name}.json")
        self.offset = self.reached = os.fstat(file.fileno()).st_size
        version = Version.read(self._note)
        # Another address may have another version; a checksum, if there is one, will tell.
        self.version = version if version is not None and version.url == want.url else None
        self._digest = want.algorithm and _digest_of(file, want.algorithm, progress)
        self.pieces = self.offset > 0
        self.replaced = False

    @property
    def can_go_on(self) -> bool:
        """Whether anything would tell if the rest did not belong to the bytes there."""
        marked = self.version is not None and self.version.mark is not None
        return marked or self.want.checksum is not None

    @property
    def total(self) -> int | None:
        """Bytes of the whole file: what the caller says, else what the server says."""
        said = self.version.total if self.version is not None else None
        return said if self.want.size is None else self.want.size

    @property
    def checksum(self) -> str | None:
        """Of the bytes there, in the form and kind that is expected."""
        return f"{self.want.algorithm}:{self._digest.hexdigest()}" if self._digest else None

    @property
    def is_complete(self) -> bool:
        """Whether the bytes there are known to be the whole file."""
        if self.want.checksum is None:
            return self.total == self.offset
        return self.checksum == self.want.checksum and self.want.size in (None, self.offset)

    def restart(self, version: Version | None) -> None:
        """Throw the bytes away and note the version that is to come."""
        self._file.truncate(0)
        self.offset, self.pieces = 0, False
        self._digest = self.want.algorithm and hashlib.new(self.want.algorithm)
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
        with self._explained():
            while rest:
                count = self._file.write(rest)
                if self._digest:
                    self._digest.update(rest[:count])
                self.offset += count
                self.reached = max(self.reached, self.offset)
                rest = rest[count:]

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
        self._file.close()  # Windows renames no open file
        with self._explained():
            put_in_place(self.path, path)
        self._note.unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            left = f"{self.offset} bytes are kept there"
            raise write_error(error, str(self.path), left, "and start again") from error
