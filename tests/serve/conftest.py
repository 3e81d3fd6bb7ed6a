"""A server of the smallest model in a folder of its own, and images to send."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")

from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.serve.app import create_app

ADDRESS = "http://127.0.0.1:8765"
NewClient = Callable[..., TestClient]


@pytest.fixture
def png() -> bytes:
    """A ramp of 48 x 64, so that pixels can be told apart."""
    pixels = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def app(tiny: DiffusionInst, tmp_path: Path) -> ASGIApp:
    return create_app({"tiny": tiny}, tmp_path / "sessions")


@pytest.fixture
def new_client() -> Iterator[NewClient]:
    """A client of an app, as a browser of its own; the app ends with the test."""
    opened: list[TestClient] = []

    def new(app: ASGIApp) -> TestClient:
        client = TestClient(app, base_url=ADDRESS)
        client.__enter__()
        opened.append(client)
        return client

    yield new
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(app: ASGIApp, new_client: NewClient) -> TestClient:
    return new_client(app)
