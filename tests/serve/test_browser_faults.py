"""Does the page say what is in its way (another tab, another model, a full server), and go on?"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import FilePayload, Page, Route, expect
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


def idle(page: Page) -> None:
    expect(page.locator("#objects button").first).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()


def named(page: Page, name: str, place: str) -> None:
    expect(page.locator("#image-name")).to_have_text(name)
    expect(page.locator("#image-place")).to_have_text(place)


@pytest.fixture
def large() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros((2000, 2100, 3), np.uint8)).save(content, format="PNG")
    return content.getvalue()


def test_an_image_that_cannot_be_shown_can_be_removed_and_left(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes, large: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path))
    full = {"detail": "the disk is full"}
    page.route("**/tile?*", lambda route: route.fulfill(status=507, json=full))
    pick(page, large, png)
    expect(page.locator(".toast.bad")).to_contain_text("the disk is full")
    named(page, "0.png", "1 of 2")
    page.keyboard.press("PageDown")
    named(page, "1.png", "2 of 2")
    expect(page.locator("#count")).to_have_text("0")  # it is shown
    page.keyboard.press("r")
    idle(page)
    page.keyboard.press("PageUp")
    named(page, "0.png", "1 of 2")
    expect(page.locator("#count")).to_have_text("")
    first = page.request.get(f"{page.url}images").json()["images"][0]["id"]
    page.evaluate(f"localStorage.setItem('image', '{first}')")
    page.reload()
    expect(page.locator(".toast.bad")).to_contain_text("the disk is full")
    named(page, "1.png", "2 of 2")  # another one is shown
    page.keyboard.press("PageUp")
    named(page, "0.png", "1 of 2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#remove").click()
    named(page, "1.png", "1 of 1")


def test_a_large_image_can_be_removed_before_it_is_there(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes, large: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path))
    page.route("**/tile?*", lambda route: None)  # no answer ever
    pick(page, large, png)
    expect(page.locator("#busy-text")).to_have_text("Opening a large image")
    named(page, "0.png", "1 of 2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#remove").click()
    named(page, "1.png", "1 of 1")
    expect(page.locator("#count")).to_have_text("0")  # it is shown
    page.locator("#run").click()
    idle(page)


def test_what_another_tab_removed_is_passed_over(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path))
    pick(page, png, png, png)
    idle(page)
    named(page, "0.png", "1 of 3")
    ids = [one["id"] for one in page.request.get(f"{page.url}images").json()["images"]]
    page.request.delete(f"{page.url}images/{ids[1]}")
    page.locator("#next").click()
    expect(page.locator(".toast.bad")).to_contain_text("1.png is not there any more")
    named(page, "2.png", "2 of 2")
    expect(page.locator("#count")).to_have_text("0")  # it is shown
    page.request.delete(f"{page.url}images/{ids[2]}")
    page.keyboard.press("r")
    expect(page.locator(".toast.bad").last).to_contain_text("2.png is not there any more")
    named(page, "0.png", "1 of 1")
    idle(page)
    page.request.delete(f"{page.url}images/{ids[0]}")
    page.keyboard.press("a")
    expect(page.locator("#empty")).to_be_visible()


def test_a_model_that_is_gone_leaves_the_menu(
    new_page: NewPage, animals: dict[str, DiffusionInst], tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app(animals, tmp_path))
    pick(page, png)
    idle(page)
    page.evaluate("document.querySelector('#model').append(new Option('gone', 'gone', true, true))")
    page.keyboard.press("r")
    expect(page.locator(".toast.bad")).to_contain_text("model gone: not served here")
    expect(page.locator("#model")).to_have_value("first")
    assert page.locator("#model option").all_inner_texts() == ["first", "other"]


def test_an_image_is_not_accepted_while_a_click_is_not_answered(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path))
    held: list[Route] = []
    page.route("**/prompt", lambda route: held.append(route))
    pick(page, png, png)
    idle(page)
    with page.expect_request("**/prompt"):
        point(page)
    page.keyboard.press("a")
    expect(page.locator(".toast.bad")).to_contain_text("then accept")
    page.keyboard.press("r")
    expect(page.locator(".toast.bad").last).to_contain_text("then run")
    held[0].continue_()
    expect(page.locator("#timing")).to_contain_text("for this object")
    named(page, "0.png", "1 of 2")
    with page.expect_response("**/edit") as edited:
        page.keyboard.press("a")
    assert edited.value.json()["accepted"]
    named(page, "1.png", "2 of 2, 1 accepted")


def point(page: Page) -> None:
    page.locator("#canvas").focus()
    for key in ("p", "ArrowDown", "Enter"):
        page.keyboard.press(key)


def test_the_wait_for_a_busy_server_can_be_stopped(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path))
    full = False

    def answer(route: Route) -> None:
        if full:
            route.fulfill(status=429, headers={"Retry-After": "2"}, body="{}")
        else:
            route.continue_()

    page.route("**/stream?*", answer)
    page.route("**/prompt", answer)
    pick(page, png)
    idle(page)
    full = True
    page.keyboard.press("r")
    expect(page.locator("#busy-text")).to_contain_text("trying again in 2 s")
    page.locator("#stop").click()
    expect(page.locator("#busy")).to_be_hidden()
    full = False
    page.keyboard.press("r")
    bars = page.locator("#steps button:not(.waiting)")
    expect(bars.first).to_be_visible()
    idle(page)
    count = bars.count()
    page.wait_for_timeout(2500)  # the wait that was stopped would have ended by now
    assert bars.count() == count
    full = True
    point(page)
    expect(page.locator("#busy-text")).to_contain_text("trying again in 2 s")
    page.keyboard.press("Escape")
    expect(page.locator("#busy")).to_be_hidden()


def test_a_dropped_folder_is_a_queue_of_its_images(
    new_page: NewPage, tiny: DiffusionInst, tmp_path: Path, png: bytes
) -> None:
    page = new_page(create_app({"tiny": tiny}, tmp_path / "sessions"))
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name in ("10.png", "9.png", "notes.txt", "more/1.PNG"):
        (folder / name).write_bytes(png)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 400, "y": 400, "data": data}
        devtools.send("Input.dispatchDragEvent", event)
    named(page, "9.png", "1 of 3")
    images = page.request.get(f"{page.url}images").json()["images"]
    assert [one["name"] for one in images] == ["9.png", "10.png", "1.PNG"]
    assert page.locator(".toast").count() == 0
