"""Fetches a file over HTTP: whole and as published, however often the connection breaks.

What has arrived lies in NAME.part, and which version of the file that is in NAME.part.json: the
next attempt, or the next start of the program, goes on from there. NAME itself is always complete.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from diffinst.download.partial import Expected, PartialFile, Progress, Version
from diffinst.io.disk import check_space

_CHUNK = 1 << 18  # bytes
_BROKEN = (OSError, http.client.HTTPException)  # what a connection raises
_LONGEST_BACKOFF = 30.0  # seconds between two attempts
_LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more is not waited for


class DownloadError(OSError):
    """A file could not be fetched, or is not the published one; the message says what to do."""


def fetch(
    url: str,
    path: str | Path,
    *,
    checksum: str | None = None,
    size: int | None = None,
    timeout: float = 30,
    retries: int = 5,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch a file, going on from where an earlier attempt or program stopped.

    A file that is there already and fits `checksum` and `size` is not fetched again; one that does
    not is kept as NAME.bad. With neither of the two, a file is whole when the server says so.

    Args:
        url: http:// or https://; redirects are followed, proxies taken from the environment.
        path: The file to write; folders above it are created.
        checksum: "sha256:..." or "md5:..." in hexadecimal digits.
        size: In bytes.
        timeout: Seconds without a byte after which a connection counts as broken.
        retries: How often it is tried again before giving up; counted anew after every attempt
            that brought bytes never there before.
        progress: Called with the bytes there and the bytes in all (None: unknown).
        sleep: Waits between two attempts.

    Returns:
        `path`.

    Raises:
        DownloadError: The server refuses, breaks off too often, or sends another file.
        OSError: The disk is full or cannot be written.
        ValueError: An argument is of the wrong form.

    Example:
        >>> fetch("https://example.org/a.zip", "a.zip", checksum="md5:...")  # doctest: +SKIP
    """
    path = Path(path)
    want = Expected(url, checksum and checksum.lower(), size)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"cannot write {path}: it is a folder; name a file")
    if path.exists():
        problem = want.problem_of(path, progress)
        if problem is None:
            return path
        aside = path.with_name(f"{path.name}.bad")
        os.replace(path, aside)
        warnings.warn(f"{path}: {problem}; kept as {aside.name}, fetched anew", stacklevel=2)
    failures = 0
    with PartialFile.of(path, want, progress) as part:
        while True:
            before = part.reached
            try:
                _receive(part, timeout, progress)
                break
            except _Interruption as stop:
                failures = 1 if part.reached > before else failures + 1
                if failures > retries:
                    raise DownloadError(
                        f"{url}: {stop}; tried {failures} times in a row; {part.offset} bytes are "
                        f"kept in {part.path}: start again later to go on from there"
                    ) from stop
                backoff = min(2.0 ** (failures - 1), _LONGEST_BACKOFF)
                sleep(backoff if stop.wait is None else stop.wait)
        part.finish(path)
    return path


class _Interruption(Exception):
    """An attempt ended early; another one may bring more. `wait` is what the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _receive(part: PartialFile, timeout: float, progress: Progress | None) -> None:
    """One attempt: returns when the part is complete."""
    if part.offset and not part.can_go_on:
        part.restart(None)
    if part.is_complete:
        return
    url, size = part.want.url, part.want.size
    response = _ask(part, timeout)
    if response is not None:
        with response:
            _begin(part, response)
            while chunk := _next(response):
                part.append(chunk)
                if progress is not None:
                    progress(part.offset, part.total)
                if size is not None and part.offset > size:
                    part.remove()
                    raise DownloadError(
                        f"{url}: sends more than the expected {size} bytes: it is not the "
                        "published file, and was removed; try another address"
                    )
    if part.is_complete or (part.total is None and part.want.checksum is None):
        return
    difference = part.want.difference(part.checksum) or f"has {part.offset} bytes"
    if part.total is None:
        raise _Interruption(f"ends after {part.offset} bytes, which {difference}")
    if part.offset < part.total:
        raise _Interruption(f"ends after {part.offset} of {part.total} bytes")
    if part.pieces and not part.replaced:
        part.restart(None)
        part.reached, part.replaced = 0, True
        raise _Interruption(f"the file put together from several attempts {difference}")
    part.remove()
    raise DownloadError(
        f"{part.path.stem} from {url} {difference}: it is damaged or not the published file, and "
        "was removed; start again, or try another address"
    )


def _ask(part: PartialFile, timeout: float) -> http.client.HTTPResponse | None:
    """Send the request; None: the server says that there is no more to send."""
    url = part.want.url
    headers = {"User-Agent": "diffinst", "Accept-Encoding": "identity"}
    if part.offset:
        headers["Range"] = f"bytes={part.offset}-"
        if part.version is not None and part.version.mark is not None:
            headers["If-Range"] = part.version.mark
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
        return response
    except urllib.error.HTTPError as error:
        with error:
            _refused(part, error)
            return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: {error.reason}; check the address") from error
        raise _Interruption(f"no connection ({error.reason})") from error
    except http.client.InvalidURL as error:
        raise DownloadError(f"{url}: {error}; correct the address") from error
    except _BROKEN as error:
        raise _Interruption(f"no answer ({str(error) or repr(error)})") from error


def _refused(part: PartialFile, error: urllib.error.HTTPError) -> None:
    """What an error status means: raises, or returns where all bytes are there already."""
    url = part.want.url
    if error.code == 416 and part.offset:  # nothing from there on
        asked, (_, total) = part.offset, _content_range(error.headers)
        if total == part.offset:
            part.note(_version(url, error.headers, total))
            return
        part.restart(None)
        raise _Interruption(f"its file ends before byte {asked}, which was asked for")
    said = f"the server answers {error.code} {error.reason}".rstrip()
    if error.code not in (408, 425, 429) and error.code < 500:
        raise DownloadError(f"{url}: {said}; check the address, or try another one") from error
    wait = _retry_after(error.headers)
    if wait is not None and wait > _LONGEST_RETRY_AFTER:
        raise DownloadError(f"{url}: {said} and asks to come back in {wait:.0f} s") from error
    raise _Interruption(said, wait)


def _begin(part: PartialFile, response: http.client.HTTPResponse) -> None:
    """Decide from the headers whether these bytes go on from the part or begin anew."""
    url, size, headers = part.want.url, part.want.size, response.headers
    start, total = _content_range(headers)
    if response.status == 200:
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    elif response.status != 206:
        raise DownloadError(f"{url}: the server answers {response.status}; check the address")
    if None not in (size, total) and total != size:  # before the bytes there are thrown away
        raise DownloadError(
            f"{url}: the server's file has {total} bytes, expected are {size}: it is not the "
            "published file; check the address, or try another one"
        )
    version = _version(url, headers, total)
    if response.status == 200:
        part.restart(version)
    elif start != part.offset or (part.version and not version.may_be(part.version)):
        part.restart(None)
        raise _Interruption("the rest it sends does not fit what is there")
    else:
        part.pieces = True
        part.note(part.version or version)
    if part.total is not None:
        check_space(part.path.parent, part.total - part.offset, f"the rest of {url}")


def _next(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)  # as it comes: a stall loses nothing
    except _BROKEN as error:
        raise _Interruption(f"the connection broke ({str(error) or repr(error)})") from error


def _version(url: str, headers: Message, total: int | None) -> Version:
    etag = headers.get("ETag")
    strong = None if etag is None or etag.startswith("W/") else etag  # If-Range takes these only
    return Version(url, strong, headers.get("Last-Modified"), total)


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and bytes in all of `bytes 5-9/10`, `bytes */10` or `bytes 5-9/*`."""
    found = re.fullmatch(
        r"bytes\s+(?:(\d+)-\d+|\*)/(?:(\d+)|\*)", headers.get("Content-Range", "").strip()
    )
    first, total = found.groups() if found else (None, None)
    return (int(first) if first else None), (int(total) if total else None)


def _retry_after(headers: Message) -> float | None:
    """Seconds to wait that the server asks for, given as such or as a date."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
