"""Do the weights in the repo do what the README and their card say?"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from diffinst import DiffusionInst
from diffinst.weights.store import locate, shipped_names

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 25_000_000  # bytes


def test_every_shipped_weight_has_a_card_with_its_hash() -> None:
    assert shipped_names() == ("nano-nuclei",)
    for name in shipped_names():
        folder = locate(name)
        weights = (folder / "model.safetensors").read_bytes()
        assert len(weights) < LIMIT
        assert hashlib.sha256(weights).hexdigest() in (folder / "README.md").read_text()


def test_card_and_readme_say_what_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/nano-nuclei.json").read_text())
    card = (locate("nano-nuclei") / "README.md").read_text()
    readme = (ROOT / "README.md").read_text()
    rows = {r["pair"]: r for r in measured["rows"] if r["sampler"] == "search"}
    assert set(rows) >= {f"{s}x{p}" for s in (1, 4) for p in (100, 300, 500)}
    for pair, row in rows.items():
        steps, proposals = pair.split("x")
        ap, ap50, ap75 = row["mask/AP"], row["mask/AP50"], row["mask/AP75"]
        line = rf"\| {steps} \| {proposals} \| {ap:.3f} \| {ap50:.3f} \| {ap75:.3f} \|"
        assert re.search(line, card), line
        if steps in ("1", "4") and int(proposals) <= 500:
            assert f"{ap:.3f} ({ap50:.3f})" in readme


def test_coins_are_found_one_by_one(nano: DiffusionInst) -> None:
    coins = data.coins()
    half = Image.fromarray(coins).resize((coins.shape[1] // 2, coins.shape[0] // 2))
    found = nano.predict(half, steps=2, proposals=100, threshold=0.7)
    assert 22 <= len(found) <= 26  # there are 24
    masks = found.masks.numpy()
    assert masks.any(0).mean() > 0.25  # coins cover about a third
    overlap = masks.sum(0) > 1
    assert overlap.mean() < 0.02


def test_a_blank_image_holds_nothing(nano: DiffusionInst) -> None:
    assert len(nano.predict(np.full((96, 96, 3), 255, np.uint8))) == 0


def test_the_demo_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="__main__")
    text = capsys.readouterr().out
    for name in ("overlays/coins.png", "masks/galaxies.png", "film_strip.png", "results.json"):
        path = tmp_path / "runs" / "demo" / name
        assert path.is_file() and path.stat().st_size > 100
    assert "runs/demo/film_strip.png" in text
    results = json.loads((tmp_path / "runs" / "demo" / "results.json").read_text())
    assert len(results) > 60


def test_the_moving_picture_moves_and_is_small() -> None:
    path = ROOT / "docs" / "images" / "denoising.webp"
    assert path.stat().st_size < 1_500_000
    with Image.open(path) as film:
        count = getattr(film, "n_frames", 1)
        first = np.asarray(film.convert("RGB"), np.int16)
        film.seek(count - 1)
        last = np.asarray(film.convert("RGB"), np.int16)
    assert count == 4 * 14 + 1  # 15 moments, three images between two
    assert np.abs(first - last).mean() > 5


@pytest.mark.slow
def test_the_moving_picture_is_drawn_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["animate.py", str(tmp_path / "new.webp")])
    runpy.run_path(str(ROOT / "examples" / "animate.py"), run_name="__main__")
    with Image.open(tmp_path / "new.webp") as film:
        assert getattr(film, "n_frames", 1) == 4 * 14 + 1
