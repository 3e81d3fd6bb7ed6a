"""`diffinst serve`: what is refused before anything is loaded, and one real start and end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")
Run = Callable[..., tuple[int, str, str]]


def test_a_taken_port_is_one_line(diffinst: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, said = diffinst("serve", "--port", port, "--folder", str(tmp_path))
    assert code == 1 and f"--port {port}: cannot listen there" in said.replace("\n", " ")


def test_a_short_token_is_refused(diffinst: Run, tmp_path: Path) -> None:
    code, _, said = diffinst("serve", "--token", "abc", "--folder", str(tmp_path))
    assert code == 1 and "--token: give at least 8 characters" in said


@pytest.mark.parametrize(("flag", "value"), [("--session-mb", "0"), ("--session-days", "-1")])
def test_bounds_of_a_session_are_numbers_of_use(diffinst: Run, flag: str, value: str) -> None:
    code, _, said = diffinst("serve", flag, value)
    assert code != 0 and flag in said and value in said


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_prints_its_address_serves_and_ends(tmp_path: Path, host: str) -> None:
    command = [sys.executable, "-m", "diffinst", "serve", "--port", "0", "--host", host]
    server = subprocess.Popen(
        [*command, "--folder", str(tmp_path)], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert server.stderr is not None
    line = server.stderr.readline()
    found = re.fullmatch(r"page       http://([\d.]+):(\d+)/(?:#token=(\S+))?\n", line)
    assert found and found[1] == host and bool(found[3]) == (host == "0.0.0.0")
    client = httpx.Client(base_url=f"http://127.0.0.1:{found[2]}")
    assert client.get("/health", timeout=60).json()["status"] == "ok"
    assert client.get("/models").status_code == (401 if found[3] else 200)
    headers = {"Authorization": f"Bearer {found[3]}"} if found[3] else {}
    assert client.get("/models", headers=headers).json()["models"][0]["name"] == "nano-nuclei"
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode in (0, 143)
    assert not (tmp_path / ".diffinst.lock").exists()
