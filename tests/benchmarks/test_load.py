"""Does the load test see a wrong answer, and count what it says?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")

import uvicorn

from diffinst import DiffusionInst
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits


@pytest.fixture(scope="module")
def load(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("load")


def test_the_numbers_of_a_round(load: ModuleType) -> None:
    replies = [load.Reply(0.1 * i, i % 2, i != 3) for i in range(1, 5)]  # 0.1 to 0.4 s
    row = load.summary(2, 3, replies, 2.0)
    assert (row["requests"], row["requests a second"], row["put off"]) == (4, 2, 2)
    assert (row["wrong"], row["lost"]) == (1, 2)
    assert row["median seconds"] == pytest.approx(0.25)
    assert row["p99 seconds"] == pytest.approx(0.4 - 0.03 * 0.1)  # between the last two


def test_every_answer_is_compared(
    load: ModuleType, tiny: DiffusionInst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "OPTIONS", {"steps": 1, "proposals": 8, "threshold": 0.0})
    clients = load.made(tiny, 3)
    app = create_app({"tiny": tiny}, tmp_path, limits=Limits(waiting=1, rate=1000))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        row = load.together(address, clients, 2)
        assert (row["clients"], row["requests"], row["wrong"], row["lost"]) == (3, 6, 0, 0)
        mixed_up = replace(clients[0], wanted=clients[1].wanted)
        assert load.together(address, [mixed_up], 2)["wrong"] == 2
    finally:
        server.should_exit = True
        thread.join()
