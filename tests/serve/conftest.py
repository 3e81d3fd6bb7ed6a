"""A server of the smallest model in a folder of its own, and images to send."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")

import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.serve.app import create_app
from diffinst.weights.store import CONFIG_FILE

ADDRESS = "http://127.0.0.1:8765"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT = 120_000  # ms; a busy machine is slow
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NewClient = Callable[..., TestClient]
Running = Callable[[ASGIApp], AbstractContextManager[str]]
Animals = dict[str, DiffusionInst]


@pytest.fixture
def png() -> bytes:
    """A ramp of 48 x 64, so that pixels can be told apart."""
    pixels = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture(scope="session")
def animals(tiny: DiffusionInst, tmp_path_factory: pytest.TempPathFactory) -> Animals:
    """Two models that call the same classes differently."""
    found = {}
    for name, names in (("first", ["cat", "dog", "owl"]), ("other", ["owl", "cat", "dog"])):
        folder = tmp_path_factory.mktemp(name)
        tiny.save_pretrained(folder)
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        config["model"]["class_names"] = names
        (folder / CONFIG_FILE).write_text(json.dumps(config), "utf-8")
        found[name] = DiffusionInst.from_pretrained(folder)
    return found


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


@pytest.fixture
def run() -> Running:
    """Puts an app behind a real socket while a block runs; gives its address."""
    return running


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """The app behind a real socket; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened by somebody new; nothing may be said on its console."""
    context = browser.new_context(viewport={"width": 1200, "height": 760})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    said: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    # A refused request is reported by the browser itself.
    assert [line for line in said if not line.startswith("Failed to load resource")] == []


@pytest.fixture(scope="module")  # while it runs, so does an event loop in this thread
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    named = os.environ.get("DIFFINST_BROWSER")
    found = named or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium found: `apt-get install chromium`, or name one: DIFFINST_BROWSER")
    playwright.expect.set_options(timeout=WAIT)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(nano: DiffusionInst, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = create_app({"nano-nuclei": nano}, tmp_path_factory.mktemp("sessions"))
    with running(app) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page of the shipped weights."""
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[[ASGIApp], Page]]:
    """The page of an app of the test's own."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(opened(browser, stack.enter_context(running(app))))
