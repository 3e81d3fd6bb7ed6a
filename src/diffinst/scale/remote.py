"""Files behind a URI (s3://, gs://, http://): opened through fsspec, tried again where it fails."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from diffinst.io.one_line import one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TRIES = 5
FIRST_PAUSE = 0.2  # seconds; doubled each time
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

Result = TypeVar("Result")


def is_uri(text: str) -> bool:
    """Whether it is an address such as s3://bucket/name; C:/name is none."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URI, and the path in it.

    Raises:
        ValueError: fsspec, or its package for this protocol, is not installed, or there is none.
    """
    protocol = uri.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(
            f"{uri}: addresses need fsspec; install it: pip install 'diffinst[scale]'"
        ) from error
    try:
        found, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        how = one_line(str(error))  # fsspec names the package
        raise ValueError(f"{uri}: {protocol}:// needs a package of its own: {how}") from error
    except ValueError as error:
        raise ValueError(f"{uri}: {one_line(str(error))}; allowed are s3://, gs://, ...") from error
    return found, str(path)


def tried(call: Callable[[], Result]) -> Result:
    """What a call gives, which is made again a few times where the other side fails."""
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        try:
            return call()
        except FINAL:
            raise
        except Exception:  # of each protocol's own kind; the last one is raised
            time.sleep(pause)
            pause *= 2
    return call()


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A file of this machine with the content, while the block runs; its suffix is kept.

    Raises:
        OSError: It cannot be fetched.
    """
    files, path = filesystem(uri)
    suffix = Path(path.partition("?")[0]).suffix[:16]
    handle, name = tempfile.mkstemp(suffix=suffix, prefix="diffinst-")
    os.close(handle)
    try:
        content = tried(lambda: files.cat_file(path))
        Path(name).write_bytes(content)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """What an error says, in a line, without numbers of the system."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(f"{type(error).__name__}: {text}" if text.isdigit() else str(text))
