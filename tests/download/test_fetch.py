"""A file arrives whole and as published, whatever server and connection do."""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypedDict

import pytest

from diffinst.download.fetch import DownloadError, fetch

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: more than one chunk
SIZE, HALF = len(CONTENT), len(CONTENT) // 2
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
OTHER = CONTENT[::-1]


class Known(TypedDict, total=False):
    """What is known of a file before it comes."""

    checksum: str
    size: int


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next behaviour of the test's list, then normally."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers.items()))
        behaviour = self.server.script.pop(0) if self.server.script else normal
        behaviour(self)
        self.close_connection = True

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if self.server.etag is not None:
            self.send_header("ETag", self.server.etag)
        if self.server.modified is not None:
            self.send_header("Last-Modified", self.server.modified)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


Behaviour = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """Serves `content` the way `script` says; `asked` are the headers of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.script: list[Behaviour] = []
        self.asked: list[dict[str, str]] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/data/file.zip"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


def normal(to: Handler) -> None:
    """Range and If-Range as HTTP has them."""
    content, wanted = to.server.content, to.headers.get("Range")
    mark = to.headers.get("If-Range")
    if wanted is None or (mark is not None and mark not in (to.server.etag, to.server.modified)):
        to.head(200, len(content))
        to.wfile.write(content)
        return
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        to.head(416, 0, Content_Range=f"bytes */{len(content)}")
        return
    total = len(content)
    to.head(206, total - start, Content_Range=f"bytes {start}-{total - 1}/{total}")
    to.wfile.write(content[start:])


def cut(to: Handler) -> None:
    """Half of the file, then the connection ends."""
    to.head(200, len(to.server.content))
    to.wfile.write(to.server.content[:HALF])


def cut_without_length(to: Handler) -> None:
    to.head(200, None)
    to.wfile.write(to.server.content[:HALF])


def cut_chunked(to: Handler) -> None:
    to.protocol_version = "HTTP/1.1"
    to.head(200, None, Transfer_Encoding="chunked")
    to.wfile.write(b"%x\r\n%s\r\n" % (HALF, to.server.content[:HALF]))


def stall(to: Handler) -> None:
    """Half of the file, then nothing; who asks for the rest gets it."""
    if "Range" in to.headers:
        normal(to)
        return
    to.head(200, len(to.server.content))
    to.wfile.write(to.server.content[:HALF])
    to.wfile.flush()
    to.server.over.wait(30)


def all_without_length(to: Handler) -> None:
    to.head(200, None)
    to.wfile.write(to.server.content)


def ignore_range(to: Handler) -> None:
    to.head(200, len(to.server.content))
    to.wfile.write(to.server.content)


def hang_up(to: Handler) -> None:
    """No answer at all."""


def length(claimed: int) -> Behaviour:
    def behaviour(to: Handler) -> None:
        to.head(200, claimed)
        to.wfile.write(to.server.content)

    return behaviour


def status(code: int, **headers: str) -> Behaviour:
    return lambda to: to.head(code, 0, **headers)


def partial_from(start: int, total: int = SIZE, content: bytes = CONTENT) -> Behaviour:
    def behaviour(to: Handler) -> None:
        to.head(206, total - start, Content_Range=f"bytes {start}-{total - 1}/{total}")
        to.wfile.write(content[start:])

    return behaviour


class Waits(list[float]):
    """Stands in for time.sleep and remembers."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.zip"


def assert_complete(path: Path) -> None:
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("checksum", [SHA256, MD5, SHA256.upper(), None])
@pytest.mark.parametrize("size", [SIZE, None])
def test_a_file_arrives_and_is_not_fetched_again(
    server: Server, path: Path, checksum: str | None, size: int | None
) -> None:
    seen: list[tuple[int, int | None]] = []
    known = partial(fetch, checksum=checksum, size=size)
    assert known(server.url, path, progress=lambda *at: seen.append(at)) == path
    assert_complete(path)
    assert seen[-1] == (SIZE, SIZE) and seen == sorted(seen)
    assert known(server.url, path) == path
    assert len(server.asked) == 1


def test_an_empty_file_arrives(server: Server, path: Path) -> None:
    server.content = b""
    fetch(server.url, path, size=0)
    assert path.read_bytes() == b"" and names(path.parent) == ["file.zip"]


@pytest.mark.parametrize("checksum", [SHA256, None])
@pytest.mark.parametrize("broken", [cut, cut_chunked])
def test_after_a_break_the_rest_is_fetched(
    server: Server, path: Path, broken: Behaviour, checksum: str | None
) -> None:
    server.script, waits = [broken], Waits()
    fetch(server.url, path, checksum=checksum, sleep=waits)
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.asked[1]["If-Range"] == '"one"'
    assert waits == [1.0]


def test_a_stall_counts_as_a_break_and_loses_nothing(server: Server, path: Path) -> None:
    server.script = [stall] * 9  # on a slow machine even the first half may come too late
    fetch(server.url, path, checksum=SHA256, timeout=1, retries=9, sleep=Waits())
    assert_complete(path)
    assert server.ranges[0] is None and server.ranges[-1] is not None


@pytest.mark.parametrize("known", [{"checksum": MD5}, {"size": SIZE}])
def test_an_early_end_is_noticed_without_a_content_length(
    server: Server, path: Path, known: Known
) -> None:
    server.script = [cut_without_length]
    fetch(server.url, path, **known, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("known", [{"checksum": MD5}, {"size": SIZE}, {}])
def test_a_whole_file_without_a_content_length(server: Server, path: Path, known: Known) -> None:
    server.script = [all_without_length]
    fetch(server.url, path, **known)
    assert_complete(path)


def test_a_server_that_ignores_ranges_starts_anew_and_nothing_is_appended(
    server: Server, path: Path
) -> None:
    server.script = [cut, ignore_range]
    fetch(server.url, path, checksum=SHA256, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_ignores_ranges_and_always_breaks_is_given_up(
    server: Server, path: Path
) -> None:
    server.script, waits = [cut] * 10, Waits()
    message = rf"ends after {HALF} of {SIZE} bytes; tried 4 times in a row; {HALF} bytes are kept"
    with pytest.raises(DownloadError, match=message):
        fetch(server.url, path, checksum=SHA256, retries=3, sleep=waits)
    assert len(server.asked) == 4 and waits == [1.0, 2.0, 4.0]
    assert names(path.parent) == ["file.zip.part", "file.zip.part.json"]


def test_attempts_that_bring_something_new_are_not_counted(server: Server, path: Path) -> None:
    def ten_bytes_more(to: Handler) -> None:
        start = int(to.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        rest = SIZE - start
        to.head(206 if start else 200, rest, Content_Range=f"bytes {start}-{SIZE - 1}/{SIZE}")
        to.wfile.write(CONTENT[start : start + 10])

    server.script, waits = [ten_bytes_more] * 20, Waits()
    fetch(server.url, path, retries=1, sleep=waits)
    assert_complete(path)
    assert server.ranges == [None, *(f"bytes={start}-" for start in range(10, 210, 10))]
    assert waits == [1.0] * 20


@pytest.mark.parametrize("start", [0, HALF - 10, HALF + 10])
def test_a_rest_from_another_place_is_not_appended(server: Server, path: Path, start: int) -> None:
    def misplaced(to: Handler) -> None:
        """As many bytes as are wanted, so that their number gives nothing away."""
        rest = SIZE - HALF
        to.head(206, rest, Content_Range=f"bytes {start}-{start + rest - 1}/{SIZE}")
        to.wfile.write(bytes(rest))

    server.script = [cut, misplaced]
    fetch(server.url, path, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_wrong_bytes_are_removed_and_both_checksums_named(server: Server, path: Path) -> None:
    server.content = OTHER
    given = f"sha256:{hashlib.sha256(OTHER).hexdigest()}"
    with pytest.raises(DownloadError) as raised:
        fetch(server.url, path, checksum=SHA256)
    assert str(raised.value).startswith(
        f"file.zip from {server.url} has {given}, expected is {SHA256}: "
    )
    assert names(path.parent) == []
    assert len(server.asked) == 1


def test_pieces_that_do_not_fit_together_are_fetched_anew_once(server: Server, path: Path) -> None:
    server.etag = None  # so nothing tells that the file is another one
    server.script = [cut, partial_from(HALF, content=OTHER)]
    fetch(server.url, path, checksum=SHA256, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-", None]

    path.unlink()
    server.script = [cut, partial_from(HALF, content=OTHER)] * 2
    with pytest.raises(DownloadError, match=r"has sha256:.*, expected is sha256:"):
        fetch(server.url, path, checksum=SHA256, sleep=Waits())
    assert names(path.parent) == []


@pytest.mark.parametrize(
    ("known", "ranges"), [({"checksum": SHA256}, [None]), ({}, [None, f"bytes={SIZE}-"])]
)
def test_a_content_length_beyond_the_end(
    server: Server, path: Path, known: Known, ranges: list[str | None]
) -> None:
    server.script = [length(SIZE + 10)]
    fetch(server.url, path, **known, sleep=Waits())
    assert_complete(path)
    assert server.ranges == ranges  # asked for the rest, the server says that there is none


def test_a_content_length_before_the_end_does_not_pass_for_the_file(
    server: Server, path: Path
) -> None:
    server.script = [length(HALF)]
    with pytest.raises(DownloadError, match=r"has md5:.*, expected is md5:"):
        fetch(server.url, path, checksum=MD5)
    assert names(path.parent) == []


def test_another_size_is_refused_before_what_is_there_is_lost(server: Server, path: Path) -> None:
    """As a login page of a network gives it in place of the file."""
    server.script = [cut, length(30)]
    message = f"the server's file has 30 bytes, expected are {SIZE}"
    with pytest.raises(DownloadError, match=message):
        fetch(server.url, path, size=SIZE, sleep=Waits())
    assert path.with_name("file.zip.part").read_bytes() == CONTENT[:HALF]
    fetch(server.url, path, size=SIZE)
    assert_complete(path)
    assert server.ranges[-1] == f"bytes={HALF}-"


def test_more_than_expected_without_a_content_length(server: Server, path: Path) -> None:
    server.script = [all_without_length]
    with pytest.raises(DownloadError, match="sends more than the expected 10 bytes"):
        fetch(server.url, path, size=10)
    assert names(path.parent) == []


@pytest.mark.parametrize("kind", ["etag", "modified"])
def test_a_file_that_changed_in_between_starts_anew(server: Server, path: Path, kind: str) -> None:
    server.etag = None
    setattr(server, kind, '"one"' if kind == "etag" else formatdate(1e9, usegmt=True))
    server.content = OTHER

    def cut_and_change(to: Handler) -> None:
        cut(to)
        server.content = CONTENT
        setattr(server, kind, '"two"' if kind == "etag" else formatdate(2e9, usegmt=True))

    server.script = [cut_and_change]
    fetch(server.url, path, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-"]  # answered with 200 and all of it


def test_a_changed_file_is_noticed_where_if_range_is_ignored(server: Server, path: Path) -> None:
    server.content = OTHER

    def cut_and_change(to: Handler) -> None:
        cut(to)
        server.content, server.etag = CONTENT, '"two"'

    server.script = [cut_and_change, partial_from(HALF)]
    fetch(server.url, path, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_and_a_checksum_nothing_is_put_together(
    server: Server, path: Path, etag: str | None
) -> None:
    server.etag, server.script = etag, [cut]
    fetch(server.url, path, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, None]


def test_a_file_that_became_shorter(server: Server, path: Path) -> None:
    def cut_and_shrink(to: Handler) -> None:
        cut(to)
        server.content = CONTENT[:10]

    server.script = [cut_and_shrink]
    fetch(server.url, path, sleep=Waits())
    assert path.read_bytes() == CONTENT[:10]
    assert server.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, path: Path, code: int) -> None:
    server.script = [status(code)]
    with pytest.raises(DownloadError, match=rf"file\.zip: the server answers {code} .*address"):
        fetch(server.url, path, sleep=Waits())
    assert len(server.asked) == 1 and names(path.parent) == []


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server: Server, path: Path, code: int) -> None:
    server.script, waits = [status(code), status(code), hang_up], Waits()
    fetch(server.url, path, sleep=waits)
    assert_complete(path)
    assert waits == [1.0, 2.0, 4.0]


def test_the_wait_between_attempts_is_limited_and_so_are_they(server: Server, path: Path) -> None:
    server.script, waits = [status(500)] * 9, Waits()
    with pytest.raises(DownloadError, match=r"answers 500 .*; tried 8 times in a row; 0 bytes"):
        fetch(server.url, path, retries=7, sleep=waits)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert names(path.parent) == []


def test_retry_after_is_heeded(server: Server, path: Path) -> None:
    soon = formatdate(time.time() + 100, usegmt=True)
    server.script = [status(503, Retry_After="7"), status(429, Retry_After=soon)]
    server.script += [status(503, Retry_After="soon"), status(503, Retry_After="0")]
    waits = Waits()
    fetch(server.url, path, sleep=waits)
    assert_complete(path)
    assert waits[0] == 7 and 0 < waits[1] <= 100 and waits[2:] == [4, 0]


def test_a_long_retry_after_is_reported(server: Server, path: Path) -> None:
    server.script = [status(503, Retry_After="3600")]
    with pytest.raises(DownloadError, match=r"answers 503 .* asks to come back in 3600 s"):
        fetch(server.url, path, sleep=Waits())


def test_redirects_are_followed_by_the_request_for_the_rest_too(server: Server, path: Path) -> None:
    moved = status(302, Location=server.url)
    server.script = [moved, cut, moved]
    fetch(server.url.replace("data", "old"), path, checksum=SHA256, sleep=Waits())
    assert_complete(path)
    assert server.ranges == [None, None, f"bytes={HALF}-", f"bytes={HALF}-"]


def test_redirects_in_a_circle_end(server: Server, path: Path) -> None:
    server.script = [status(302, Location=server.url)] * 50
    with pytest.raises(DownloadError, match="answers 302 "):
        fetch(server.url, path, sleep=Waits())


def test_nobody_listens(server: Server, path: Path) -> None:
    free = Server()  # bound, and closed at once
    free.server_close()
    with pytest.raises(DownloadError, match=r"no connection \(.*refused.*; tried 3 times"):
        fetch(free.url, path, retries=2, sleep=Waits())
    assert names(path.parent) == []


def test_an_unknown_certificate_is_not_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    waits = Waits()
    with pytest.raises(DownloadError, match="self-signed certificate"):
        fetch("https://127.0.0.1/a", path, sleep=waits)
    assert waits == []


def interrupt(done: int, total: int | None) -> None:
    if done >= HALF:
        raise KeyboardInterrupt


@pytest.mark.parametrize("checksum", [SHA256, None])
def test_an_interrupted_program_goes_on_at_the_next_start(
    server: Server, path: Path, checksum: str | None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, path, checksum=checksum, progress=interrupt)
    assert names(path.parent) == ["file.zip.part", "file.zip.part.json"]
    there = path.with_name("file.zip.part").read_bytes()
    assert CONTENT.startswith(there) and len(there) >= HALF
    fetch(server.url, path, checksum=checksum)
    assert_complete(path)
    # All may have come at once: then nothing is left to ask for.
    assert server.ranges == [None, f"bytes={len(there)}-"][: 1 + (len(there) < SIZE)]


def test_another_address_goes_on_if_a_checksum_can_tell(server: Server, path: Path) -> None:
    def leave_half() -> None:
        server.script = [cut]
        with pytest.raises(DownloadError):
            fetch(server.url, path, retries=0, sleep=Waits())

    mirror = server.url.replace("data", "mirror")
    leave_half()
    fetch(mirror, path, checksum=SHA256)
    assert_complete(path)
    assert server.ranges[-1] == f"bytes={HALF}-" and "If-Range" not in server.asked[-1]
    path.unlink()
    leave_half()
    fetch(mirror, path)
    assert_complete(path)
    assert server.ranges[-1] is None


@pytest.mark.parametrize("note", ["{broken", "[]", '{"url": 1}'])
def test_a_damaged_note_costs_the_part_but_not_the_file(
    server: Server, path: Path, note: str
) -> None:
    path.parent.mkdir()
    path.with_name("file.zip.part").write_bytes(OTHER[:100])
    path.with_name("file.zip.part.json").write_text(note)
    fetch(server.url, path)
    assert_complete(path)


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        ({"checksum": SHA256}, r"has sha256:\w+, expected is sha256:"),
        ({"size": SIZE}, f"has 3 bytes, expected are {SIZE}"),
    ],
)
def test_a_wrong_file_of_that_name_is_set_aside(
    server: Server, path: Path, known: Known, problem: str
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.warns(UserWarning, match=rf"file\.zip: {problem}.*; kept as file\.zip\.bad"):
        fetch(server.url, path, **known)
    assert path.read_bytes() == CONTENT
    assert path.with_name("file.zip.bad").read_bytes() == b"old"


def test_a_disk_without_room_is_noticed_before_the_transfer(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1000))
    with pytest.raises(OSError, match=r"needs 307\.2 kB in .*, where 1\.0 kB are free"):
        fetch(server.url, path)
    assert names(path.parent) == []


@pytest.mark.parametrize(
    ("url", "known", "message"),
    [
        ("ftp://host/a", {}, "give an http:// or https:// address"),
        ("file:///etc/passwd", {}, "give an http:// or https:// address"),
        ("a.zip", {}, "give an http:// or https:// address"),
        ("http://host/a", {"size": -1}, "size -1 of http://host/a: give a number of bytes"),
        ("http://host/a", {"checksum": "abc"}, "checksum 'abc' .*: give 'sha256:' and 64 or"),
        ("http://host/a", {"checksum": "md5:"}, "checksum 'md5:'"),
        ("http://host/a", {"checksum": SHA256[:-1]}, "checksum 'sha256:"),
        ("http://host/a", {"checksum": f"sha1:{'0' * 40}"}, "checksum 'sha1:"),
        ("http://host/a", {"checksum": MD5[:-1] + "g"}, "checksum 'md5:"),
    ],
)
def test_wrong_arguments(path: Path, url: str, known: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fetch(url, path, **known)  # type: ignore[arg-type]
    assert not path.parent.exists()


def test_an_address_with_a_blank_is_refused_at_once(path: Path) -> None:
    waits = Waits()
    with pytest.raises(DownloadError, match=re.escape("http://127.0.0.1/a b: ")):
        fetch("http://127.0.0.1/a b", path, sleep=waits)
    assert waits == []


def test_a_folder_of_that_name(server: Server, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        fetch(server.url, tmp_path)
    assert server.asked == []
