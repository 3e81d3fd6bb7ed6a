"""Every rule that keeps the server and its sessions safe, tried from outside."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits

NewClient = Callable[..., TestClient]
Running = Callable[[ASGIApp], AbstractContextManager[str]]
TOKEN = "0123456789abcdef"


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes whose header says side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def guarded(tiny: DiffusionInst, tmp_path: Path, new_client: NewClient) -> TestClient:
    return new_client(create_app({"tiny": tiny}, tmp_path / "s", token=TOKEN, hosts=None))


@pytest.mark.parametrize("sent", [None, "Bearer wrong-token", f"Basic {TOKEN}", "Bearer ", TOKEN])
@pytest.mark.parametrize("path", ["/models", "/metrics", "/images", "/openapi.json", "/stream"])
def test_without_the_token_nothing_is_told(
    guarded: TestClient, sent: str | None, path: str
) -> None:
    headers = {} if sent is None else {"Authorization": sent}
    answer = guarded.get(path, headers=headers)
    assert answer.status_code == 401 and "token" in answer.json()["detail"]
    assert guarded.get("/").status_code == 200  # the page, which asks for it


def test_the_token_opens_by_header_and_by_cookie(guarded: TestClient) -> None:
    assert guarded.get("/models", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.post("/token", content="wrong").status_code == 401
    assert guarded.get("/models").status_code == 401
    answer = guarded.post("/token", content=TOKEN)
    assert "HttpOnly" in answer.headers["set-cookie"] and "strict" in answer.headers["set-cookie"]
    assert guarded.get("/models").status_code == 200


@pytest.mark.parametrize(
    "image",
    ["../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a" * 16, "0" * 17, "%00"],
)
def test_ids_are_no_paths(client: TestClient, png: bytes, image: str) -> None:
    client.post("/images", content=png)
    for tail in ("", "/pixels", "/export"):
        answer = client.get(f"/images/{image}{tail}")
        assert answer.status_code == 404 and "root:" not in answer.text
    answer = client.post("/predict", json={"image": image})
    assert answer.status_code == 404
    assert client.delete(f"/images/{image}").status_code in (404, 405)


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "samples/../../app.py", "/etc/passwd"]
)
def test_static_names_are_no_paths(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_names_of_files_are_no_paths(client: TestClient, png: bytes, tmp_path: Path) -> None:
    name = "../../../../evil\n\0.png"
    about = client.post("/images", params={"name": name}, content=png).json()
    assert "\n" not in about["name"] and "\0" not in about["name"]
    assert {Path(f).name for f in files_in(tmp_path / "sessions")} == {
        "about.json", "image.png", "work.json",
    }  # fmt: skip
    yolo = client.get(f"/images/{about['id']}/export", params={"format": "yolo"})
    assert ".." not in yolo.headers["content-disposition"]


def test_another_session_sees_nothing(app: ASGIApp, png: bytes, new_client: NewClient) -> None:
    mine, other = new_client(app), new_client(app)
    image = mine.post("/images", content=png).json()["id"]
    other.post("/images", content=png)
    for client in (other, new_client(app)):
        assert image not in client.get("/images").text
        assert client.get(f"/images/{image}").status_code == 404
        assert client.get(f"/images/{image}/pixels").status_code == 404
        assert client.get("/stream", params={"image": image}).status_code == 404
        assert client.post("/prompt", json={"image": image, "points": [[3, 3]]}).status_code == 404
        assert client.post(f"/images/{image}/edit", json={"action": "undo"}).status_code == 404
        assert client.delete(f"/images/{image}").status_code == 404
    assert mine.get(f"/images/{image}").status_code == 200


def test_the_folder_does_not_tell_session_ids(
    app: ASGIApp, client: TestClient, png: bytes, tmp_path: Path, new_client: NewClient
) -> None:
    cookie = client.post("/images", content=png).cookies["diffinst_session"]
    assert len(cookie) == 43 and cookie not in " ".join(files_in(tmp_path))
    (folder,) = (tmp_path / "sessions").iterdir()
    thief = new_client(app)
    thief.cookies.set("diffinst_session", folder.name)
    assert thief.get("/images").json() == {"images": []}


@pytest.mark.parametrize("side", [6000, 30_000, 100_000])
def test_a_bomb_is_refused_before_it_is_decoded(client: TestClient, side: int) -> None:
    answer = client.post("/images", params={"name": "bomb.png"}, content=bomb(side))
    assert answer.status_code == 413 and "bomb.png: has" in answer.json()["detail"]
    assert client.get("/images").json() == {"images": []}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"no image at all", 415),
        (b"%PDF-1.7\n", 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"\x89PNG\r\n\x1a\n", 415),
    ],
)
def test_what_is_no_image_is_refused(client: TestClient, content: bytes, status: int) -> None:
    answer = client.post("/images", params={"name": "x.png"}, content=content)
    assert answer.status_code == status and answer.json()["detail"].startswith("x.png: ")


def test_a_file_cut_short_is_refused_without_a_path(client: TestClient, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(content, format="PNG")
    answer = client.post("/images", params={"name": "x.png"}, content=content.getvalue()[:5000])
    assert answer.status_code == 400 and answer.json()["detail"].startswith("x.png: is cut short")
    assert "/tmp" not in answer.text and files_in(tmp_path) == []


def test_large_bodies_are_refused(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient
) -> None:
    limits = Limits(upload_bytes=1000, body_bytes=500)
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=limits))
    assert client.post("/images", content=b"x" * 1001).status_code == 413

    def pieces() -> Iterator[bytes]:  # of a length that is not said before
        for _ in range(30):
            yield b"x" * 100

    answer = client.post("/images", content=pieces())
    assert answer.status_code == 413 and "allowed are 0.001 MB" in answer.json()["detail"]
    assert client.post("/prompt", content=b"[" * 501).status_code == 413
    assert files_in(tmp_path) == []


def test_too_many_requests_are_told_when_to_come_again(
    tiny: DiffusionInst, tmp_path: Path, new_client: NewClient
) -> None:
    limits = Limits(rate=0.01, burst=3)
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=limits))
    assert [client.get("/health").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert 90 <= int(client.get("/health").headers["retry-after"]) <= 100


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},  # a name that somebody else points to 127.0.0.1
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "["},
        {"Origin": "http://["},
    ],
)
def test_other_sites_are_refused(client: TestClient, png: bytes, headers: dict[str, str]) -> None:
    assert client.post("/images", content=png, headers=headers).status_code == 403
    assert client.get("/images", headers=headers).status_code == 403


def test_no_other_site_is_let_in_and_no_inline_script_runs(client: TestClient) -> None:
    asked = {"Origin": "http://127.0.0.1:8765", "Access-Control-Request-Method": "POST"}
    for answer in (client.get("/"), client.options("/images", headers=asked), client.get("/nope")):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert "unsafe" not in policy and answer.headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert page.count("<script") == 1 and "onclick" not in page and "style=" not in page


def test_half_an_upload_leaves_nothing(
    tiny: DiffusionInst, tmp_path: Path, png: bytes, run: Running
) -> None:
    with run(create_app({"tiny": tiny}, tmp_path)) as address:
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as half:
            head = f"POST /images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(png)}"
            half.sendall(head.encode() + b"\r\n\r\n" + png[: len(png) // 2])
        assert httpx.get(f"{address}/health").status_code == 200
        assert files_in(tmp_path) == []


def test_a_body_that_never_comes_ends(tiny: DiffusionInst, tmp_path: Path, run: Running) -> None:
    with run(create_app({"tiny": tiny}, tmp_path, limits=Limits(body_seconds=0.3))) as address:
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            slow.sendall(f"POST /images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
            slow.sendall(b"Content-Length: 1000\r\n\r\nabc")
            assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]


def metrics_of(address: str) -> dict[str, float]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.split(" ") for line in lines)}


def test_who_leaves_is_not_worked_for_and_a_full_queue_says_so(
    tiny: DiffusionInst, tmp_path: Path, png: bytes, run: Running
) -> None:
    app = create_app({"tiny": tiny}, tmp_path, limits=Limits(waiting=1, steps=100_000))

    async def scene(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            image = (await client.post("/images", content=png)).json()["id"]
            asked = {"image": image, "steps": 1000, "proposals": 100}
            async with client.stream("GET", "/stream", params=asked) as stream:
                lines = stream.aiter_lines()
                while await anext(lines) != "event: step":
                    pass
                busy = await client.post("/prompt", json={"image": image, "points": [[9, 9]]})
                assert busy.status_code == 429 and int(busy.headers["retry-after"]) >= 1
        # The client has left in the middle of a thousand steps.

    with run(app) as address:
        asyncio.run(scene(address))
        until = time.monotonic() + 60
        while metrics_of(address)["diffinst_queue"] and time.monotonic() < until:
            time.sleep(0.05)
        after = metrics_of(address)
        assert after["diffinst_jobs_cancelled_total"] == 1
        assert after["diffinst_refused_busy_total"] == 1
        assert after["diffinst_steps_total"] < 900


def test_work_ends_at_the_time_limit_and_is_kept(
    tiny: DiffusionInst, tmp_path: Path, png: bytes, new_client: NewClient
) -> None:
    limits = Limits(seconds=1e-6)
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=limits))
    image = client.post("/images", content=png).json()["id"]
    asked = {"image": image, "steps": 5, "proposals": 20, "threshold": 0}
    done = client.post("/predict", json=asked).json()
    assert done["steps"] == 1 and "stopped at the limit of 1e-06 s" in done["note"]
    assert client.get(f"/images/{image}").json()["objects"] == done["objects"] != []
