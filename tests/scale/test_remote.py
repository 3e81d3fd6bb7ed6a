"""Is what lies behind an address read and written, though the other side fails now and then?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.io.image_error import ImageReadError
from diffinst.scale import remote
from diffinst.scale.inputs import Inputs
from diffinst.scale.messages import Row
from diffinst.scale.place import place
from diffinst.scale.remote import filesystem, is_uri, local_copy, tried
from diffinst.scale.rows import name_of, read_part, write_part
from diffinst.scale.worker import _read

fsspec = pytest.importorskip("fsspec")
ROWS = [Row("a" * 32, "a.png", error="a.png: gone")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.001)


class Store(BaseHTTPRequestHandler):
    """Serves files of a folder; every tenth request fails."""

    folder = Path()
    asked = failed = 0

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked += 1
        file = self.folder / self.path.strip("/")
        status = 200 if file.is_file() else 404
        if self.asked % 10 == 0:
            type(self).failed += 1
            status = 503
        content = file.read_bytes() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="http:// needs it")
    Store.folder, Store.asked, Store.failed = tmp_path, 0, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_images_of_a_server_that_fails_every_tenth_time(server: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for i in range(12):
        Image.fromarray(pixels + np.uint8(i)).save(tmp_path / f"{i}.png")
    for i in range(12):
        found, notes = _read(f"{server}/{i}.png", "", Reading())
        assert np.array_equal(found, pixels + np.uint8(i)) and notes == ()
    assert Store.failed >= 1
    with pytest.raises(ImageReadError, match=rf"^{server}/nix\.png: cannot be fetched"):
        _read(f"{server}/nix.png", "", Reading())
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=rf"^{server}/broken\.png: is not an image"):
        _read(f"{server}/broken.png", "", Reading())


def test_files_of_a_run_are_read_from_a_server_that_fails(server: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"{}")
    for _ in range(12):
        assert place(server).read("run.json") == b"{}"
    assert Store.failed >= 1


def test_a_call_is_tried_again_but_not_for_ever() -> None:
    calls = []

    def fails(times: int, error: Exception) -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    assert tried(lambda: fails(4, OSError("busy"))) == 5
    calls.clear()
    with pytest.raises(OSError, match="busy"):
        tried(lambda: fails(5, OSError("busy")))
    calls.clear()
    with pytest.raises(FileNotFoundError):
        tried(lambda: fails(5, FileNotFoundError()))
    assert len(calls) == 1


def test_a_run_behind_an_address() -> None:
    where = place("memory://runs/one/")
    assert where.names("parts") == set() and where.local is None
    write_part(where, 0, ROWS, "f")
    assert where.names("parts") == {"part-000000.parquet"}
    assert list(read_part(where, 0, "f")) == ROWS
    with pytest.raises(FileNotFoundError):
        list(read_part(where, 1, "f"))


def test_an_address_is_told_from_a_path() -> None:
    assert [is_uri(text) for text in ("s3://a/b", "http://x", "C:/a", "a/b", "://")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"warp://a: .*allowed are s3://"):
        filesystem("warp://a")


def test_a_local_copy_is_removed(tmp_path: Path) -> None:
    with fsspec.open("memory://x/a.tif", "wb") as file:
        file.write(b"abc")
    with local_copy("memory://x/a.tif") as copy:
        assert copy.read_bytes() == b"abc" and copy.suffix == ".tif"
    assert not copy.exists()


def test_s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Listed, read and written through s3fs, against a server of moto."""
    pytest.importorskip("s3fs", reason="s3:// needs it")
    server = pytest.importorskip("moto.server", reason="stands in for S3").ThreadedMotoServer(
        port=0
    )
    server.start()
    host, port = server.get_host_and_port()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    for name in names:
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        files, _ = filesystem("s3://bucket")
        files.mkdir("bucket")
        Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(tmp_path / "a.png")
        for name in ("b.png", "sub/a.png", "c.txt"):
            files.put_file(str(tmp_path / "a.png"), f"bucket/in/{name}")
        entries = list(Inputs.of("s3://bucket/in"))
        assert [entry.path for entry in entries] == [
            "s3://bucket/in/b.png",
            "s3://bucket/in/sub/a.png",
        ]
        assert entries[0].bytes == os.path.getsize(tmp_path / "a.png")
        assert isinstance(entries[0].time, int)
        assert (_read(entries[1].path, "", Reading())[0] == 7).all()
        where = place("s3://bucket/run")
        write_part(where, 2, ROWS, "f")
        assert where.names("parts") == {name_of(2).rpartition("/")[2]}
        assert list(read_part(where, 2, "f")) == ROWS
    finally:
        server.stop()
