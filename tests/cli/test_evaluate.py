"""Does `diffinst eval` leave its files, go on where it stopped, and say what it cannot score?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import store

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]
QUICK_EVAL = ("--steps", 1, "--proposals", 6, "--device", "cpu")


def test_eval_leaves_its_files_and_goes_on(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    flags = ("--data", shapes, "--model", model, "--out", tmp_path / "[run]", *QUICK_EVAL)
    code, text, err = diffinst("eval", *flags, "--limit", 2, "--worst", 1)
    assert code == 0 and re.search(r"^images +2\.0000$", text, re.MULTILINE)
    assert str(tmp_path / "[run]" / "metrics.json") in err
    code, text, _ = diffinst("eval", *flags)
    assert code == 0 and re.search(r"^images +3\.0000$", text, re.MULTILINE)
    names = {p.name for p in (tmp_path / "[run]").iterdir()}
    assert names == {
        "settings.json",
        "predictions",
        "metrics.json",
        "results.json",
        "box_results.json",
        "per_class.csv",
        "precision_recall.png",
        "worst.json",
        "worst",
    }
    code, _, err = diffinst("eval", *flags, "--seed", 1)
    assert code == 1 and "another evaluation: seed 0 (now 1); choose another folder" in err


def test_eval_without_a_folder_only_prints(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, _ = diffinst("eval", "--data", shapes, "--model", model, *QUICK_EVAL)
    assert code == 0 and "mask/AP" in text and "triangle" in text
    assert list(tmp_path.iterdir()) == []


def test_eval_goes_on_past_a_broken_image(diffinst: Run, model: Path, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=0, val=3, size=(48, 64), objects=(2, 3))
    (data / "val" / "000001.png").write_bytes(b"no image")
    flags = ("--data", data, "--model", model, "--out", tmp_path / "run", *QUICK_EVAL)
    code, text, err = diffinst("eval", *flags)
    assert code == 1 and "1 images could not be read" in err and "000001.png" in err
    assert re.search(r"^images +2\.0000$", text, re.MULTILINE)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["failed_images"] == 1


def test_eval_of_one_class(diffinst: Run, shapes: Path, tmp_path: Path) -> None:
    only = Config.from_preset("tiny").updated(model={"num_classes": 1, "class_names": ["object"]})
    network = DiffusionInstNetwork(only.model)
    folder = store.save(network, only, tmp_path / "one")
    flags = ("--data", shapes, "--model", folder, *QUICK_EVAL)
    code, _, err = diffinst("eval", *flags)
    assert code == 1 and "has 3 classes" in err and "evaluate with --single-class" in err
    out = tmp_path / "run"
    code, text, _ = diffinst("eval", *flags, "--single-class", "--out", out, "--worst", 0)
    assert code == 0 and re.search(r"^object ", text, re.MULTILINE)
    numbers = json.loads((out / "metrics.json").read_text())
    for name in ("mask/AP90", "mask/AP_small", "label_map/mSA", "label_map/PQ"):
        value = "undefined" if numbers[name] is None else f"{numbers[name]:.4f}"
        assert re.search(rf"^{name} +{value}$", text, re.MULTILINE)
    assert numbers["label_map/threshold"] == (only.postprocess.threshold or 0.3)


def test_eval_of_other_classes_names_them(diffinst: Run, shapes: Path) -> None:
    flags = ("--data", shapes, "--model", "nano-nuclei", *QUICK_EVAL)
    code, _, err = diffinst("eval", *flags)
    assert code == 1 and "has 3 classes (disc, box, triangle), the model 1 (nucleus)" in err


def test_eval_of_no_images(diffinst: Run, model: Path, tmp_path: Path) -> None:
    data = make_shapes(tmp_path, train=0, val=0)
    code, _, err = diffinst("eval", "--data", data, "--model", model, *QUICK_EVAL)
    assert code == 1 and "lists no images" in err


def test_eval_of_test_images_writes_what_a_server_takes(
    diffinst: Run, model: Path, tmp_path: Path
) -> None:
    data = make_shapes(tmp_path / "data", train=0, val=2, size=(48, 64))
    file = data / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    del content["annotations"]
    (data / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    file.unlink()
    (data / "val").rename(data / "test-dev2017")
    flags = ("--data", data, "--split", "test-dev2017", "--model", model, *QUICK_EVAL)
    code, text, err = diffinst("eval", *flags)
    assert code == 1 and "image_info_test-dev2017.json has no annotations" in err
    code, text, err = diffinst("eval", *flags, "--submission", tmp_path / "sub")
    assert code == 0 and "no metrics are computed" in err and "mask/AP" not in text
    name = "detections_test-dev2017_diffinst_results"
    assert {p.name for p in (tmp_path / "sub").iterdir()} == {f"{name}.json", f"{name}.zip"}
    entries = json.loads((tmp_path / "sub" / f"{name}.json").read_text())
    assert {entry["image_id"] for entry in entries} == {1, 2}
    assert set(entries[0]) == {"image_id", "category_id", "segmentation", "score"}
    both = (*flags, "--submission", tmp_path / "x.zip", "--sweep-steps", 1)
    code, _, err = diffinst("eval", *both)
    assert code == 1 and "omit --sweep-steps" in err


def test_eval_sweeps_steps_and_proposals(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    flags = ("--data", shapes, "--model", model, "--device", "cpu", "--limit", 1)
    sweep = ("--sweep-steps", 1, 2, "--sweep-proposals", 4, 6, "--out", tmp_path / "s")
    code, text, _ = diffinst("eval", *flags, *sweep)
    assert code == 0
    rows = [line.split()[:2] for line in text.splitlines() if line[:1].isdigit()]
    assert rows == [["1", "4"], ["1", "6"], ["2", "4"], ["2", "6"]]
    names = {p.name for p in (tmp_path / "s").iterdir()}
    assert names == {"cells", "sweep.json", "sweep.csv", "sweep.png"}
    code, text, _ = diffinst("eval", *flags, "--sweep-steps", 2, "--proposals", 5)
    assert code == 0 and [r.split()[:2] for r in text.splitlines()[1:]] == [["2", "5"]]
    for kind in ("ddim", "search"):
        out = tmp_path / kind
        code, *_ = diffinst("eval", *flags, "--sweep-steps", 2, "--kind", kind, "--out", out)
        (settings,) = out.glob("cells/*/settings.json")
        assert code == 0 and json.loads(settings.read_text())["sampler"] == kind
    code, _, err = diffinst("eval", *flags, "--sweep-steps", 2, "--proposals", 0)
    assert code != 0 and "Must be >= 1" in err
