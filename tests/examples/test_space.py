"""Does the Space start as the hub starts it, and is it open within its limits?"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diffinst import DiffusionInst

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")
SPACE = Path(__file__).resolve().parents[2] / "examples" / "space"


@pytest.fixture
def address(tiny: DiffusionInst, tmp_path: Path) -> Iterator[str]:
    """Of app.py, run as a process of its own with the smallest model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = str(tiny.save_pretrained(tmp_path / "tiny"))
    env = {**os.environ, "DIFFINST_MODEL": model, "PORT": str(port), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env=env)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(60)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


def ask(address: str, path: str, content: bytes | None = None) -> dict[str, object]:
    """As a visitor's request comes through the hub's proxy; with content it is a POST."""
    headers = {"Host": "me-diffinst.hf.space", "Content-Type": "application/json"}
    request = urllib.request.Request(address + path, data=content, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def test_it_starts_and_is_open_within_its_limits(address: str) -> None:
    for _ in range(600):  # it loads torch first
        try:
            health = ask(address, "/health")
            break
        except urllib.error.URLError:
            time.sleep(0.2)
    assert health["status"] == "ok"
    served = ask(address, "/models")
    assert isinstance(served["models"], list) and served["models"][0]["name"] == "tiny"
    assert isinstance(served["limits"], dict) and served["limits"]["steps"] == 8
    assert served["limits"]["iterations"] == 0
    for path in ("/training", "/training/resume"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(address, path, content=b"{}")


def test_its_head_is_one_that_the_hub_reads() -> None:
    _, head, _ = (SPACE / "README.md").read_text("utf-8").split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["sdk"] == "docker" and told["app_port"] == 7860
    assert len(told["short_description"]) <= 60 and told["license"] == "apache-2.0"
    for name in ("Dockerfile", "requirements.txt", "app.py"):
        assert (SPACE / name).is_file()
