"""The tiles of a large image together show it, at each level."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.serve import tiles
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About

NewClient = Callable[[ASGIApp], TestClient]
WIDTH, HEIGHT = 150, 101


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images are large ones: tiles of 40 pixels, 150, 75 and 38 wide."""
    monkeypatch.setattr(tiles, "WHOLE", 64 * 48)
    monkeypatch.setattr(tiles, "SIDE", 40)


@pytest.fixture
def large() -> bytes:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x, y, x + y], axis=2).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def image(client: TestClient, cut: None, large: bytes) -> str:
    return str(client.post("/images", content=large).json()["id"])


def test_together_they_are_the_image_at_each_level(client: TestClient, image: str) -> None:
    assert client.get(f"/images/{image}").json()["tiles"] == {"side": 40, "levels": 3}
    whole = Image.open(io.BytesIO(client.get(f"/images/{image}/pixels").content))
    for level, (width, height) in enumerate([(150, 101), (75, 51), (38, 26)]):
        shown = Image.new("RGB", (width, height))
        for y in range(-(-height // 40)):
            for x in range(-(-width // 40)):
                answer = client.get(f"/images/{image}/tile?level={level}&x={x}&y={y}")
                assert answer.headers["content-type"] == "image/jpeg"
                part = Image.open(io.BytesIO(answer.content))
                assert part.size == (min(40, width - 40 * x), min(40, height - 40 * y))
                shown.paste(part, (40 * x, 40 * y))
        expected = np.asarray(whole.reduce(2**level), int)
        assert np.abs(np.asarray(shown, int) - expected).max() <= 12  # JPEG


@pytest.mark.parametrize("at", ["level=3&x=0&y=0", "level=0&x=4&y=0", "level=0&x=0&y=3"])
def test_there_are_no_others(client: TestClient, image: str, at: str) -> None:
    answer = client.get(f"/images/{image}/tile?{at}")
    assert answer.status_code == 404 and "has no tile" in answer.json()["detail"]


def test_small_images_have_none(client: TestClient, png: bytes, cut: None) -> None:
    small = client.post("/images", content=png).json()["id"]
    assert client.get(f"/images/{small}").json()["tiles"] is None
    assert client.get(f"/images/{small}/tile?level=0&x=0&y=0").status_code == 404


def test_half_made_tiles_are_none(
    image: str, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        answer = client.get(f"/images/{image}/tile?level=0&x=0&y=0")
    assert answer.status_code == 507 and "disk is full" in answer.json()["detail"]
    (place,) = (tmp_path / "sessions").glob("*/*")
    assert {path.name for path in place.iterdir()} == {"about.json", "image.png", "work.json"}
    assert client.get(f"/images/{image}/tile?level=0&x=0&y=0").status_code == 200


def test_another_session_has_no_tiles(
    app: ASGIApp, image: str, png: bytes, new_client: NewClient
) -> None:
    other = new_client(app)
    other.post("/images", content=png)
    assert other.get(f"/images/{image}/tile?level=0&x=0&y=0").status_code == 404


def test_they_take_no_room_of_the_session(
    tiny: DiffusionInst, large: bytes, cut: None, tmp_path: Path, new_client: NewClient
) -> None:
    limits = Limits(session_bytes=10_000)
    client = new_client(create_app({"tiny": tiny}, tmp_path, limits=limits))
    image = client.post("/images", content=large).json()["id"]
    assert client.get(f"/images/{image}/tile?level=0&x=0&y=0").status_code == 200
    made = [path.stat().st_size for path in tmp_path.rglob("*.jpg")]
    assert sum(made) > 10_000
    assert client.post("/images", content=large).status_code == 201


def test_an_image_that_is_gone_has_none(image: str, tmp_path: Path, cut: None) -> None:
    with pytest.raises(Refused, match="not there any more"):
        tiles.tile(tmp_path / "gone.png", About(image, "a", WIDTH, HEIGHT, 0), 0, 0, 0)
