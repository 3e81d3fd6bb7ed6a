"""Does `diffinst predict` go on past what it cannot read, and run as it is told to?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.acceleration import compile as compile_module
from diffinst.inference import costs
from diffinst.inference.predictor import DiffusionInst

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


def one_line(text: str) -> str:
    """Text without the frames and line breaks of a terminal."""
    return " ".join(text.replace("│", " ").split())


def test_predict_goes_on_past_a_broken_image(diffinst: Run, model: Path, tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / name)
    broken = tmp_path / "x" / "[b].png"  # brackets are not markup
    broken.write_bytes((tmp_path / "x" / "a.png").read_bytes()[:40])
    out = tmp_path / "[out]"
    flags = ("--model", model, "--out", out, "--threshold", 0, "--proposals", 4)
    code, text, err = diffinst("predict", tmp_path / "x", tmp_path / "y", *flags)
    assert code == 1 and text == ""
    assert "on 2 images" in err and str(out / "results.json") in err
    assert "1 images could not be read" in err and str(broken) in err
    for kind in ("overlays", "masks"):
        assert sorted(p.name for p in (out / kind).iterdir()) == ["a-2.png", "a.png"]
    index = json.loads((out / "index.json").read_text())
    assert len(index["images"]) == 2
    ids = {entry["image_id"] for entry in json.loads((out / "results.json").read_text())}
    assert ids == {entry["id"] for entry in index["images"]}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_the_precision_of_predict_and_eval(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, precision: str
) -> None:
    flags = ("--model", model, "--proposals", 4, "--precision", precision)
    image = next((shapes / "val").glob("*.png"))
    code, _, err = diffinst("predict", image, "--out", tmp_path / "p", *flags)
    assert code == 0 and "on 1 images" in err
    code, _, err = diffinst("eval", "--data", shapes, *flags, "--limit", 1)
    assert code == 0
    code, out, err = diffinst("predict", image, "--precision", "int8")
    assert code != 0 and "int8" in one_line(out + err)


def test_a_time_limit(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "PROBES", (40, 60))  # else a busy machine measures for long
    image = next((shapes / "val").glob("*.png"))
    flags = ("--model", model, "--device", "cpu", "--out", tmp_path / "p")
    code, _, err = diffinst("predict", image, *flags, "--seconds", 1e-6)
    assert code == 0 and "this machine was measured first" in one_line(err)
    assert "1e-06 s does not fit 1 step: the fastest was run" in one_line(err)
    assert len([*(tmp_path / "cache" / "costs").iterdir()]) == 1
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        code, out, err = diffinst("predict", image, *flags, "--seconds", wrong)
        assert code != 0 and "seconds" in one_line(out + err)
    both = ("--seconds", 1, "--steps", 2, "--proposals", 4)
    code, _, err = diffinst("predict", image, *flags, *both)
    assert code == 1 and "omit one of the three" in one_line(err)


def test_predict_and_eval_can_compile(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is impossible both go on; kernels have a test of their own."""
    monkeypatch.setattr(compile_module, "what_prevents", lambda device: "no compiler")
    flags = ("--model", model, "--proposals", 4, "--compile")
    image = next((shapes / "val").glob("*.png"))
    for command in (
        ("predict", image, "--out", tmp_path / "p", *flags),
        ("eval", "--data", shapes, "--limit", 1, *flags),
    ):
        with pytest.warns(UserWarning, match="not compiled: no compiler"):
            code, _, _ = diffinst(*command)
        assert code == 0


def test_page_channel_projection_and_stretch_are_flags(
    diffinst: Run, model: Path, tmp_path: Path
) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    deep = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    flags = ("--model", model, "--out", tmp_path / "out", "--threshold", 1, "--proposals", 4)
    code, _, err = diffinst("predict", tmp_path, *flags)
    assert code == 0 and err.count("values of more than 8 bits are stretched") == 1
    assert "a.gif: holds 2 pages, the first is read; choose one by --page 0 to 1" in err
    code, _, err = diffinst("predict", tmp_path, *flags, "--project", "max", "--stretch", "full")
    assert code == 0 and "notes" not in err
    code, _, err = diffinst("predict", tmp_path, *flags, "--page", 1, "--channel", 1)
    assert code == 1 and "deep.png: has no page 1; there is one" in err
    drawn = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png").convert("RGB"))
    assert (drawn[0, 0] == 255).all()  # green's channel of the second page
    code, _, err = diffinst("predict", tmp_path, *flags, "--page", 1, "--project", "max")
    assert code == 1 and "page 1 chooses one page, project 'max' takes all" in one_line(err)


def test_an_empty_name_is_not_the_current_folder(diffinst: Run, model: Path) -> None:
    code, _, err = diffinst("predict", "", "--model", model)
    assert code == 1 and "the name is empty; give a file or folder" in one_line(err)


def test_overlays_go_without_class_or_score_where_asked(diffinst: Run, tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :160]
    disc = np.where((y - 64) ** 2 + (x - 80) ** 2 < 30**2, 180, 20).astype(np.uint8)
    Image.fromarray(disc).save(tmp_path / "disc.png")
    model = DiffusionInst.from_pretrained("nano-nuclei", device="cpu")
    found = model.predict(tmp_path / "disc.png", proposals=100, threshold=0.45)
    drawn = {}
    for flags in ((), ("--no-labels",), ("--no-labels", "--no-scores")):
        out = tmp_path / "-".join(("out", *flags))
        proposals = ("--proposals", 100, "--threshold", 0.45)
        code, *_ = diffinst(
            "predict", tmp_path / "disc.png", "--out", out, "--device", "cpu", *proposals, *flags
        )
        assert code == 0
        drawn[flags] = np.asarray(Image.open(out / "overlays" / "disc.png"))
        chosen = found.plot(labels="--no-labels" not in flags, scores="--no-scores" not in flags)
        assert np.array_equal(drawn[flags], np.asarray(chosen))
    score, bare = drawn["--no-labels",], drawn["--no-labels", "--no-scores"]
    assert not np.array_equal(score, bare)


def test_one_way_of_reading_at_a_time(diffinst: Run, model: Path, tmp_path: Path) -> None:
    code, _, err = diffinst("predict", tmp_path, "--model", model, "--tiles", "--track")
    assert code != 0 and "--tiles and --track: one of them only" in one_line(err)


def test_other_formats(diffinst: Run, model: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    flags = ("--model", model, "--out", out, "--threshold", 0, "--proposals", 4)
    code, _, err = diffinst("predict", tmp_path / "a.png", *flags, "--as", "yolo,cvat", "--as=coco")
    assert code == 0
    assert {"coco.json", "cvat.xml", "yolo", "masks"} <= {path.name for path in out.iterdir()}
    for name in ("coco.json", "cvat.xml", "yolo"):
        assert str(out / name) in err
    code, _, err = diffinst("predict", tmp_path / "a.png", *flags, "--as", "voc")
    assert code == 1
    assert "--as voc: unknown; allowed are coco, coco-masks, yolo, labelme" in one_line(err)
