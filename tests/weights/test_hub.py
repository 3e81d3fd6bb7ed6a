"""Does a model get to the hub and back? Against a stand-in of the hub's HTTP interface."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from diffinst import DiffusionInst
from diffinst.weights.card import Card
from diffinst.weights.hub import HubError

HUB_ID = "someone/tiny-shapes"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository, in memory."""

    files: ClassVar[dict[str, bytes]] = {}
    calls: ClassVar[list[str]] = []
    refuse = False

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append(self.path)
        address = f"http://{self.headers['Host']}/{HUB_ID}"
        if self.refuse or self.headers["Authorization"] != "Bearer right":
            self.answer(b'{"error": "wrong token"}', 401)
        elif self.path.endswith("/repos/create"):
            self.json({"url": address})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.json({"files": [{"path": f["path"], **modes} for f in asked]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[line["value"]["path"]] = content
            self.json({"commitUrl": f"{address}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.json({})

    def do_GET(self) -> None:
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if "/tree/" in self.path:
            sizes = {name: len(content) for name, content in self.files.items()}
            self.json([{"type": "file", "path": n, "size": s, "oid": n} for n, s in sizes.items()])
        elif "/resolve/" not in self.path:
            siblings = [{"rfilename": name} for name in self.files]
            self.json({"id": HUB_ID, "sha": COMMIT, "siblings": siblings})
        elif name in self.files:
            content = self.files[name]
            tag = hashlib.sha1(content).hexdigest()
            self.answer(content, X_Repo_Commit=COMMIT, ETag=f'"{tag}"')
        else:
            self.answer(b"", 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    Hub.files.clear()
    Hub.calls.clear()
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_goes_to_the_hub_and_comes_back(
    tiny: DiffusionInst, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DiffusionInst(tiny.network, tiny.config)
    model.card = Card("mit", "shapes")
    assert model.push_to_hub(HUB_ID, token="right").endswith(HUB_ID)
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
    assert b"\n# tiny-shapes\n" in hub.files["README.md"]
    loaded = DiffusionInst.from_pretrained(HUB_ID)
    assert loaded.config == model.config and loaded.card == Card("mit", "shapes")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.files.clear()
    assert DiffusionInst.from_pretrained(HUB_ID).config == model.config  # from the cache


def test_a_card_written_on_the_hub_stays(tiny: DiffusionInst, hub: type[Hub]) -> None:
    hub.files["README.md"] = b"mine"
    tiny.push_to_hub(HUB_ID, token="right")
    assert hub.files["README.md"] == b"mine" and "config.json" in hub.files


def test_what_cannot_be_uploaded_is_one_clear_error(
    tiny: DiffusionInst, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match=r"'tiny' is no hub id; give owner/name"):
        tiny.push_to_hub("tiny")
    with pytest.raises(HubError, match=r"'someone/tiny-shapes' could not be uploaded .*log in"):
        tiny.push_to_hub(HUB_ID, token="wrong")
    with pytest.raises(HubError, match=r"'a b/c\?' could not be uploaded"):
        tiny.push_to_hub("a b/c?", token="right")
    assert not hub.files
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"could not be uploaded"):
        tiny.push_to_hub(HUB_ID, token="right")
