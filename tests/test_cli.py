"""Does the way of a newcomer work, and is every mistake answered by one clear line?"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffinst import __version__, checkpoint
from diffinst.cli import main
from diffinst.cli.tables import print_classes
from diffinst.config import Config, preset_names
from diffinst.data.synthetic import make_shapes
from diffinst.evaluation.outputs import ClassRow
from diffinst.inference import compilation
from diffinst.inference.predictor import DiffusionInst
from diffinst.models.network import DiffusionInstNetwork

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]
QUICK = ("--preset", "tiny", "--no-pretrained", "--train.iterations", 3, "--train.warmup", 1)


@pytest.fixture
def diffinst(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*tokens: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diffinst", *map(str, tokens)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DiffusionInst.from_preset("tiny").save_pretrained(tmp_path_factory.mktemp("model"))


def one_line(text: str) -> str:
    """Text without the frames and line breaks of a terminal."""
    return " ".join(text.replace("│", " ").split())


def test_from_data_to_a_model_to_masks(diffinst: Run, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=3, val=2, size=(48, 64))
    out = tmp_path / "run"
    flags = ("--train.lr", 2e-3, "--model.decoder.width", 16)
    code, _, err = diffinst("train", "--data", data, "--out", out, *QUICK, *flags)
    assert code == 0 and f"next: diffinst eval --data {data} --model {out}" in err
    config = Config.from_file(out / "config.json")
    assert (config.train.lr, config.train.iterations, config.model.decoder.width) == (2e-3, 3, 16)
    assert config.model.names == ("disc", "box", "triangle")
    untouched = Config.from_preset("tiny")
    assert (config.sampler, config.model.mask_branch) == (
        untouched.sampler,
        untouched.model.mask_branch,
    )

    code, text, _ = diffinst("eval", "--data", data, "--model", out, "--out", tmp_path / "eval")
    assert code == 0
    lines = [line.rsplit(maxsplit=1) for line in text.splitlines()]
    assert {"mask/AP", "box/AP"} <= {line[0].strip() for line in lines if line}
    assert re.search(r"^class +AP +AP50 +box AP +objects$", text, re.MULTILINE)
    assert re.search(r"^disc +[-0-9.]+ +[-0-9.]+ +[-0-9.]+ +\d+$", text, re.MULTILINE)
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["pictures"] == 2

    picture = data / "val" / "000000.png"
    flags = ("--threshold", 0, "--proposals", 6)
    code, _, err = diffinst("predict", picture, "--model", out, "--out", tmp_path / "p", *flags)
    assert code == 0 and "on 1 pictures" in err
    assert len(json.loads((tmp_path / "p" / "results.json").read_text())) > 0

    code, text, _ = diffinst("info", out)
    assert code == 0 and "classes     3: disc, box, triangle" in text

    code, _, err = diffinst("train", "--data", data, "--out", out, *QUICK)
    assert code == 1 and "already holds a run; use --resume" in err


def test_predict_goes_on_past_a_broken_picture(diffinst: Run, model: Path, tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / name)
    broken = tmp_path / "x" / "[b].png"  # brackets are not markup
    broken.write_bytes((tmp_path / "x" / "a.png").read_bytes()[:40])
    out = tmp_path / "[out]"
    flags = ("--model", model, "--out", out, "--threshold", 0, "--proposals", 4)
    code, text, err = diffinst("predict", tmp_path / "x", tmp_path / "y", *flags)
    assert code == 1 and text == ""
    assert "on 2 pictures" in err and str(out / "results.json") in err
    assert "1 pictures could not be read" in err and str(broken) in err
    for kind in ("overlays", "masks"):
        assert sorted(p.name for p in (out / kind).iterdir()) == ["a-2.png", "a.png"]
    index = json.loads((out / "index.json").read_text())
    assert len(index["images"]) == 2
    ids = {entry["image_id"] for entry in json.loads((out / "results.json").read_text())}
    assert ids == {entry["id"] for entry in index["images"]}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("--train.lrr", "--train.lr"), ("--model.decoder.widht", "--model.decoder.width")],
)
def test_a_misspelt_flag_gets_a_suggestion(diffinst: Run, wrong: str, right: str) -> None:
    code, out, err = diffinst("train", "--data", "x", wrong, 1)
    assert code != 0
    message = one_line(out + err)
    assert wrong in message and re.search(rf'Did you mean "?{re.escape(right)}\b', message)
    assert "Traceback" not in message


def test_a_flag_out_of_range_is_named(diffinst: Run) -> None:
    code, out, err = diffinst("train", "--data", "x", "--preset", "tiny", "--train.lr", -1)
    assert code != 0 and "lr" in out + err and "greater than 0" in one_line(out + err)
    assert "Traceback" not in out + err


def test_a_wrong_config_file_names_file_and_field(diffinst: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {learning_rate: 0.1}\n")
    code, _, err = diffinst("train", "--data", tmp_path, "--config", path)
    assert code == 1 and f"{path}: unknown field 'train.learning_rate'" in err


def test_a_config_file_is_where_flags_start_from(diffinst: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sampler: {steps: 0}\n")  # wrong in the file, whatever the flags say
    code, _, err = diffinst("train", "--data", "x", "--config", path, "--sampler.steps", 2)
    assert code == 1 and "mine.yaml: sampler.steps" in err


def test_unknown_presets_and_models_name_what_there_is(diffinst: Run, tmp_path: Path) -> None:
    code, _, err = diffinst("train", "--data", tmp_path, "--preset", "huge")
    assert code == 1 and "no preset 'huge'" in err and "tiny" in err
    code, _, err = diffinst("info", tmp_path / "[/gone]")
    assert code == 1 and f"no model '{tmp_path / '[/gone]'}'" in err


def test_missing_data_is_one_line_and_leaves_nothing(diffinst: Run, tmp_path: Path) -> None:
    flags = ("--data", tmp_path / "gone", "--out", tmp_path / "run", "--preset", "tiny")
    code, _, err = diffinst("train", *flags)
    assert code == 1
    assert err.startswith(f"error: {tmp_path / 'gone'} is no folder; give the folder of the data")
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_the_version_needs_no_torch() -> None:
    code = (
        "import sys, contextlib\n"
        "from diffinst.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == __version__


def test_help_says_whose_defaults_it_shows(diffinst: Run) -> None:
    code, text, _ = diffinst("train", "--help")
    text = one_line(text)
    assert code == 0 and "--train.lr" in text and "--model.decoder.width" in text
    assert "are the paper's: what no flag names is taken from the preset" in text


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_info_knows_presets(diffinst: Run, name: str) -> None:
    assert name in preset_names()
    code, text, _ = diffinst("info", name)
    assert code == 0 and f"preset {name}, fresh weights" in text


def official_copy(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    """The network under official names; how is told where conversion itself is tested."""
    path = Path(__file__).with_name("test_convert.py")
    spec = importlib.util.spec_from_file_location("official_names", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy: dict[str, Tensor] = module.official_copy(network)
    return copy


def test_convert_then_info(diffinst: Run, tmp_path: Path) -> None:
    small = Config().updated(
        model={
            "num_classes": 4,
            "backbone": {"name": "resnet18"},
            "mask_branch": {"width": 16, "depth": 1},
            "decoder": {"stages": 1, "width": 32, "dynamic_width": 8, "feedforward": 32},
        }
    )
    network = DiffusionInstNetwork(small.model)
    torch.save({"model": official_copy(network)}, tmp_path / "model_final.pth")
    code, _, err = diffinst("predict", tmp_path, "--model", tmp_path / "model_final.pth")
    assert code == 1 and "diffinst convert" in err
    out = tmp_path / "converted"
    code, _, err = diffinst("convert", tmp_path / "model_final.pth", "--out", out)
    assert code == 0 and f"next: diffinst info {out}" in err
    state = checkpoint.load(out)[0].state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    code, text, _ = diffinst("info", out)
    assert code == 0 and "classes     4: class 0, class 1" in text and "resnet18" in text


def test_convert_turns_a_backbone_into_a_file_and_says_how_to_use_it(
    diffinst: Run, tmp_path: Path
) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    code, _, err = diffinst("convert", tmp_path / "r18.pth", "--out", tmp_path / "out")
    assert code == 0
    path = tmp_path / "out" / "backbone.safetensors"
    assert f"--model.backbone.name resnet18 --model.backbone.weights-file {path}" in err
    assert path.is_file()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=0, val=3, size=(48, 64), objects=(2, 3))


QUICK_EVAL = ("--steps", 1, "--proposals", 6, "--device", "cpu")


def test_eval_leaves_its_files_and_goes_on(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    flags = ("--data", shapes, "--model", model, "--out", tmp_path / "[run]", *QUICK_EVAL)
    code, text, err = diffinst("eval", *flags, "--limit", 2, "--worst", 1)
    assert code == 0 and re.search(r"^pictures +2\.0000$", text, re.MULTILINE)
    assert str(tmp_path / "[run]" / "metrics.json") in err
    code, text, _ = diffinst("eval", *flags)
    assert code == 0 and re.search(r"^pictures +3\.0000$", text, re.MULTILINE)
    names = {p.name for p in (tmp_path / "[run]").iterdir()}
    assert names == {
        "settings.json",
        "predictions",
        "metrics.json",
        "results.json",
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


def test_eval_goes_on_past_a_broken_picture(diffinst: Run, model: Path, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=0, val=3, size=(48, 64), objects=(2, 3))
    (data / "val" / "000001.png").write_bytes(b"no picture")
    flags = ("--data", data, "--model", model, "--out", tmp_path / "run", *QUICK_EVAL)
    code, text, err = diffinst("eval", *flags)
    assert code == 1 and "1 pictures could not be read" in err and "000001.png" in err
    assert re.search(r"^pictures +2\.0000$", text, re.MULTILINE)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["failed_pictures"] == 1


def test_eval_of_one_class(diffinst: Run, shapes: Path, tmp_path: Path) -> None:
    only = Config.from_preset("tiny").updated(model={"num_classes": 1, "class_names": ["object"]})
    network = DiffusionInstNetwork(only.model)
    folder = checkpoint.save(network, only, tmp_path / "one")
    flags = ("--data", shapes, "--model", folder, *QUICK_EVAL)
    code, _, err = diffinst("eval", *flags)
    assert code == 1 and "has 3 classes" in err and "evaluate with --single-class" in err
    code, text, _ = diffinst("eval", *flags, "--single-class")
    assert code == 0 and re.search(r"^object ", text, re.MULTILINE)


def test_eval_of_other_classes_names_them(diffinst: Run, shapes: Path) -> None:
    flags = ("--data", shapes, "--model", "nano-nuclei", *QUICK_EVAL)
    code, _, err = diffinst("eval", *flags)
    assert code == 1 and "has 3 classes (disc, box, triangle), the model 1 (nucleus)" in err


def test_eval_of_no_pictures(diffinst: Run, model: Path, tmp_path: Path) -> None:
    data = make_shapes(tmp_path, train=0, val=0)
    code, _, err = diffinst("eval", "--data", data, "--model", model, *QUICK_EVAL)
    assert code == 1 and "lists no pictures" in err


def test_eval_of_test_pictures_writes_what_a_server_takes(
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
    flags = (*flags, "--submission", tmp_path / "x.zip", "--sweep-steps", 1)
    code, _, err = diffinst("eval", *flags)
    assert code == 1 and "leave out --sweep-steps" in err


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


def test_eval_shows_the_best_and_the_worst_of_many_classes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    undefined = [ClassRow(f"[none {i}]", *[math.nan] * 4, objects=0) for i in range(5)]
    scored = [ClassRow(f"[class {i}]", 1 - i / 100, 1, 1, 1, objects=i) for i in range(50)]
    print_classes([*scored, *undefined], "in per_class.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "box", "AP", "objects"]
    assert lines[1].split() == ["[class", "0]", "1.0000", "1.0000", "1.0000", "0"]
    assert lines[20].startswith("[class 19]") and lines[22].startswith("[class 30]")
    assert lines[21].strip() == "... 15 more in per_class.csv ..." and len(lines) == 42
    assert lines[-1].split() == ["[class", "49]", "0.5100", "1.0000", "1.0000", "49"]
    print_classes(undefined, "")
    assert capsys.readouterr().out.count("-") == 5 * 3


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_model_is_exported_and_compared(diffinst: Run, shapes: Path, tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny").save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    flags = ("--size", "64x96", "--steps", 1, "--proposals", 8, "--out", out)
    check = ("--check", shapes / "val", "--limit", 1)
    code, _, err = diffinst("export", model, "--to", "torch-export", *flags, *check)
    assert code == 0 and f"written: {out}" in err and "confident instances on 1 pictures" in err
    assert json.loads((out / "export.json").read_text())["size"] == [64, 96]
    code, _, err = diffinst("export", model, "--to", "onnx", *flags, "--int8", shapes / "val")
    assert code == 1 and "--int8 is for openvino" in err


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_the_precision_of_predict_and_eval(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, precision: str
) -> None:
    flags = ("--model", model, "--proposals", 4, "--precision", precision)
    picture = next((shapes / "val").glob("*.png"))
    code, _, err = diffinst("predict", picture, "--out", tmp_path / "p", *flags)
    assert code == 0 and "on 1 pictures" in err
    code, _, err = diffinst("eval", "--data", shapes, *flags, "--limit", 1)
    assert code == 0
    code, out, err = diffinst("predict", picture, "--precision", "int8")
    assert code != 0 and "int8" in one_line(out + err)


def test_predict_and_eval_can_compile(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is impossible both go on; kernels have a test of their own."""
    monkeypatch.setattr(compilation, "what_prevents", lambda device: "no compiler")
    flags = ("--model", model, "--proposals", 4, "--compile")
    picture = next((shapes / "val").glob("*.png"))
    for command in (
        ("predict", picture, "--out", tmp_path / "p", *flags),
        ("eval", "--data", shapes, "--limit", 1, *flags),
    ):
        with pytest.warns(UserWarning, match="not compiled: no compiler"):
            code, _, _ = diffinst(*command)
        assert code == 0
