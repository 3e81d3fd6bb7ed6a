"""Does the page say what is in its way (another tab, another model, a full server), and go on?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import FilePayload, Page, expect
from starlette.types import ASGIApp

from diffinst import DiffusionInst
from diffinst.serve.app import create_app

NewPage = Callable[[ASGIApp], Page]


def pick(page: Page, *contents: bytes) -> None:
    """As files 0.png, 1.png, ..."""
    page.locator("#file").set_input_files(
        [
            FilePayload(name=f"{i}.png", mimeType="image/png", buffer=b)
            for i, b in enumerate(contents)
        ]
    )


def test_classes_are_those_of_the_model_that_found_the_objects(
    new_page: NewPage, animals: dict[str, DiffusionInst], tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app(animals, tmp_path))
    pick(page, png)
    first = page.locator("#objects button").first
    expect(first).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()
    first.click()
    title = page.locator("#selected-title")
    before = title.inner_text()
    page.locator("#model").select_option("other")
    page.locator("#threshold").fill("0")
    page.locator("#objects button").first.click()
    expect(title).to_have_text(before)
    assert page.locator("#class option").all_inner_texts() == ["cat", "dog", "owl"]
    with page.expect_response("**/edit") as edited:
        page.locator("#class").select_option(label="owl")
    (kept,) = [one for one in edited.value.json()["objects"] if one["kept"]]
    assert kept["label"] == 2 and edited.value.json()["model"] == "first"
