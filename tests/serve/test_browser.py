"""A real browser opens the page, watches the steps, draws a box, exports what it got."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import Browser, Page, expect

from diffinst import DiffusionInst
from diffinst.datasets.segmentation import compressed
from diffinst.serve.page_files import page_files

WAIT = 120_000  # ms; a busy machine is slow
CONTENT = page_files()["samples/stained.png"].content


def pick_image(page: Page) -> None:
    picked = {"name": "stained.png", "mimeType": "image/png", "buffer": CONTENT}
    page.locator("#file").set_input_files(picked)  # type: ignore[arg-type]


def on_canvas(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image lies on the screen when all of it is shown (`fit` of view.js)."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    width, height = box["width"] - 84, box["height"] - 32
    scale = min(width / 320, height / 256)
    left = box["x"] + 68 + (width - 320 * scale) / 2
    return left + x * scale, box["y"] + 16 + (height - 256 * scale) / 2 + y * scale


def export_of(page: Page, kind: str) -> bytes:
    page.locator("#export-menu summary").click()
    with page.expect_download() as download:
        page.locator(f"[data-export={kind}]").click()
    return Path(download.value.path()).read_bytes()


def test_steps_arrive_and_a_box_gives_what_prompt_gives(
    page: Page, nano: DiffusionInst, tmp_path: Path
) -> None:
    expect(page.locator("#empty")).to_be_visible()
    page.locator("#steps-slider").fill("3")
    pick_image(page)
    bars = page.locator("#steps button:not(.waiting)")
    for count in (1, 2, 3):  # each is there before the next one comes
        expect(bars.nth(count - 1)).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()
    counts = [int(text) for text in bars.all_inner_texts()]
    assert len(counts) == 3 and min(counts) > 20
    page.screenshot(path=tmp_path / "found.png")
    page.locator("#steps button").first.click()  # scrub back
    expect(page.locator("#steps button").first).to_have_attribute("aria-current", "step")
    page.keyboard.press(".")
    page.keyboard.press(".")

    page.keyboard.press("b")
    start, end = on_canvas(page, 40, 200), on_canvas(page, 95, 254)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    with page.expect_response("**/prompt") as asked:
        page.mouse.up()
    sent = json.loads(asked.value.request.post_data or "")
    (box,) = sent["boxes"]
    assert np.allclose(box, [40, 200, 95, 254], atol=1)  # the canvas is where it seems to be
    expect(page.locator("#selected")).to_be_visible()

    coco = json.loads(export_of(page, "coco"))
    pixels = np.array(Image.open(io.BytesIO(CONTENT)).convert("RGB"))
    wanted = nano.encode(pixels).prompt(boxes=[box])
    last = compressed(coco["annotations"][-1]["segmentation"], 256, 320)
    mask = coco_mask.decode(last).astype(bool)
    assert np.array_equal(mask, wanted.masks[0].numpy())
    labels = np.array(Image.open(io.BytesIO(export_of(page, "labels"))))
    assert labels.shape == (256, 320) and (labels[mask] > 0).all()

    before = len(coco["annotations"])
    page.locator("#delete").click()
    expect(page.locator("#count")).to_have_text(str(before - 1))
    page.keyboard.press("Control+z")
    expect(page.locator("#count")).to_have_text(str(before))
    page.reload()
    expect(page.locator("#count")).to_have_text(str(before))


def test_keyboard_alone_finds_and_excludes(page: Page) -> None:
    page.locator("#samples button", has_text="Stained").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#steps button:not(.waiting)").first).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()
    page.locator("#canvas").focus()
    page.keyboard.press("p")
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    with page.expect_response("**/prompt") as asked:
        page.keyboard.press("Enter")
    (((x, y),),) = json.loads(asked.value.request.post_data or "")["points"]
    assert x == 160 and 128 < y < 140  # from the middle, one step down
    assert asked.value.status == 200
    expect(page.locator("#selected")).to_be_visible()
    page.keyboard.press("ArrowRight")
    with page.expect_response("**/prompt") as asked:
        page.keyboard.press("Shift+Enter")
    assert len(json.loads(asked.value.request.post_data or "")["exclude"]) == 1
    page.locator("#exclude").click()  # the same without a Shift key
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowDown")
    with page.expect_response("**/prompt") as asked:
        page.keyboard.press("Enter")
    assert len(json.loads(asked.value.request.post_data or "")["exclude"]) == 2
    page.keyboard.press("Escape")
    expect(page.locator("#exclude")).to_be_hidden()


def test_errors_are_said_and_the_page_goes_on(page: Page) -> None:
    broken = {"name": "x.png", "mimeType": "image/png", "buffer": b"\x89PNG no image"}
    with page.expect_response("**/images?name=x.png") as answer:
        page.locator("#file").set_input_files(broken)  # type: ignore[arg-type]
    assert answer.value.status == 415
    expect(page.locator(".toast.bad")).to_contain_text("x.png: is no image that is read here")
    expect(page.locator("#empty")).to_be_visible()


def test_a_large_image_comes_in_tiles(page: Page) -> None:
    pixels = np.full((1700, 2500, 3), (200, 40, 40), np.uint8)
    pixels[100:200, 300:400] = (40, 200, 40)  # the other tiles are flat, and passed over
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#steps-slider").fill("1")
    page.locator("#proposals").fill("50")
    large = {"name": "large.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.locator("#file").set_input_files(large)  # type: ignore[arg-type]
    expect(page.locator("#steps button:not(.waiting)").first).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()
    assert any("/tile?level=2" in url for url in asked)
    assert not any("level=0" in url or url.endswith("/pixels") for url in asked)
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    scale = min((box["width"] - 84) / 2500, (box["height"] - 32) / 1700)
    left = 68 + (box["width"] - 84 - 2500 * scale) / 2
    top = 16 + (box["height"] - 32 - 1700 * scale) / 2
    at = left + 350 * scale, top + 150 * scale
    page.mouse.move(box["x"] + at[0], box["y"] + at[1])
    with page.expect_response(lambda answer: "level=0&x=0&y=0" in answer.url):
        page.mouse.wheel(0, -1200)
    until = time.monotonic() + WAIT / 1000
    while True:  # the tile is there, and is drawn with the next frame
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        seen = shot.getpixel((round(box["x"] + at[0]), round(box["y"] + at[1])))
        assert isinstance(seen, tuple)
        if max(abs(a - b) for a, b in zip(seen, (40, 200, 40), strict=True)) < 12:
            break
        assert time.monotonic() < until, seen


def test_hovering_says_what_an_object_is_and_how_stable(page: Page) -> None:
    page.locator("#steps-slider").fill("1")
    page.locator("#noises").fill("2")
    expect(page.locator("#seconds")).to_be_disabled()  # a time budget is for one run
    pick_image(page)
    bars = page.locator("#steps button:not(.waiting)")
    expect(bars.first).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()
    assert bars.count() in (1, 2)  # one after another, or both at once
    expect(bars.first).to_have_attribute("title", re.compile("^Runs, part 1: "))
    page.locator("#objects button").first.click()
    expect(page.locator("#selected-facts")).to_contain_text("stability")
    image = page.evaluate("localStorage.getItem('image')")
    objects = page.request.get(f"{page.url}images/{image}").json()["objects"]
    one = max(objects, key=lambda found: int(found["area"]) * (found["stability"] == 1))
    mask = coco_mask.decode(one["rle"]).astype(bool)
    middle = np.argwhere(mask)[mask.sum() // 2]
    page.mouse.move(*on_canvas(page, middle[1] + 0.5, middle[0] + 0.5))
    expect(page.locator("#tip")).to_contain_text("stability 100 %")
    expect(page.locator("#tip")).to_contain_text("px")


@pytest.mark.slow
def test_a_training_is_started_watched_and_stopped(page: Page) -> None:
    menu = page.locator("#train-menu summary")
    menu.click()
    expect(page.locator("#train-text")).to_contain_text("0 of at least 5 images accepted")
    expect(page.locator("#train")).to_be_disabled()
    page.keyboard.press("Escape")
    page.locator("#steps-slider").fill("1")
    page.locator("#proposals").fill("50")
    for _ in range(5):
        before = page.locator("#image-place").text_content()
        pick_image(page)
        expect(page.locator("#image-place")).not_to_have_text(before or "")
        expect(page.locator("#steps button:not(.waiting)").first).to_be_visible()
        expect(page.locator("#busy")).to_be_hidden()
        with page.expect_response("**/edit") as edited:
            page.keyboard.press("a")
        assert edited.value.json()["accepted"]
    menu.click()
    expect(page.locator("#train-text")).to_contain_text("5 images accepted")
    page.locator("#iterations").select_option("1000")
    page.locator("#train").click()
    expect(page.locator("#train-said")).to_contain_text("of 1000, loss", timeout=400_000)
    expect(page.locator("#train-mark")).to_be_visible()
    page.locator("#train-stop").click()
    expect(page.locator("#train-said")).to_contain_text("Stopped at iteration")
    expect(page.locator("#train-resume")).to_be_visible()
    page.reload()  # it is the server that knows
    menu.click()
    expect(page.locator("#train-said")).to_contain_text("Stopped at iteration")


@pytest.mark.parametrize(
    ("scheme", "width", "height"), [("light", 1200, 760), ("dark", 1200, 760), ("dark", 390, 844)]
)
def test_no_serious_fault_of_accessibility(
    browser: Browser, address: str, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        bypass_csp=True,  # what examines the page is a script put into it
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    faults = []
    for state in ("empty", "found", "train", "keys"):
        if state == "found":
            page.locator("#steps-slider").fill("1")
            pick_image(page)
            expect(page.locator("#steps button:not(.waiting)").first).to_be_visible()
            expect(page.locator("#busy")).to_be_hidden()
            page.locator("#objects button").first.click()
        if state == "train":
            page.locator("#train-menu summary").click()
            expect(page.locator("#train-text")).to_contain_text("accepted")
        if state == "keys":
            page.keyboard.press("Escape")
            page.locator("#help").click()
        page.screenshot(path=tmp_path / f"{state}.png")
        for fault in axe.Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                faults.append((state, fault["id"], [node["html"] for node in fault["nodes"]][:3]))
    across = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert faults == [] and across <= width
