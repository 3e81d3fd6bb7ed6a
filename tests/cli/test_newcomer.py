"""Does the way of a newcomer work, and is every mistake answered by one clear line?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst import __version__
from diffinst.cli import app
from diffinst.cli.fields import PARTS, PRESET
from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.training.train import DEFAULT_PRESET

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]
QUICK = ("--preset", "tiny", "--no-pretrained", "--train.iterations", 3, "--train.warmup", 1)


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
    assert metrics["images"] == 2

    image = data / "val" / "000000.png"
    flags = ("--threshold", 0, "--proposals", 6)
    code, _, err = diffinst("predict", image, "--model", out, "--out", tmp_path / "p", *flags)
    assert code == 0 and "on 1 images" in err
    assert len(json.loads((tmp_path / "p" / "results.json").read_text())) > 0

    code, text, _ = diffinst("info", out)
    assert code == 0 and "classes     3: disc, box, triangle" in text

    code, _, err = diffinst("train", "--data", data, "--out", out, *QUICK)
    assert code == 1 and "already holds a run; use --resume" in err


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


def test_help_shows_what_runs_in_groups(diffinst: Run) -> None:
    code, text, _ = diffinst("train", "--help")
    text = one_line(text)
    assert code == 0 and "Example: diffinst train --data DATA --out runs/mine" in text
    assert text.index("--fast-dev-run") < text.index("Training: length") < text.index("--train.lr")
    assert text.index("--train.lr") < text.index("The network, fixed") < text.index("--model.dec")
    nano = Config.from_preset("nano")
    assert f"--train.iterations INT [default: {nano.train.iterations}]" in text
    assert nano.model.backbone.name in text and "Values of the preset nano" in text
    assert PRESET == DEFAULT_PRESET and set(PARTS) == set(Config.model_fields)


@pytest.mark.parametrize("command", list(app)[2:])
def test_every_command_shows_an_example(diffinst: Run, command: str) -> None:
    if command.startswith("-"):
        pytest.skip("a flag")
    code, text, _ = diffinst(command, "--help")
    assert code == 0 and f"Example: diffinst {command} " in one_line(text)


def test_epochs_are_answered_in_iterations(diffinst: Run, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=7, val=0, size=(48, 64))
    code, _, err = diffinst("train", "--data", data, "--preset", "tiny", "--epochs", 3)
    assert code == 1 and "7 images in batches of 2 are 4 iterations an epoch" in err
    assert err.rstrip().endswith("--train.iterations 11")  # 3 x 7 / 2, up
    flags = ("--train.batch-size", 7)
    code, _, err = diffinst("train", "--data", data, "--preset", "tiny", *flags, "--epochs", 3)
    assert code == 1 and err.rstrip().endswith("--train.iterations 3")
    code, _, err = diffinst("train", "--data", tmp_path / "gone", "--epochs", 3)
    assert code == 1 and "an epoch has IMAGES / 2 of them (train.batch_size)" in err
    assert "--preprocess" not in err


def test_a_number_of_classes_that_the_data_have_not(diffinst: Run, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=2, val=0, size=(48, 64))
    flags = ("--data", data, "--out", tmp_path / "run", *QUICK)
    code, _, err = diffinst("train", *flags, "--model.num-classes", 5)
    assert code == 1 and "error: model.num_classes 5: " in err
    assert "has 3 classes; omit the field" in err and not (tmp_path / "run").exists()


def test_a_near_name_is_offered(diffinst: Run, tmp_path: Path) -> None:
    code, _, err = diffinst("info", "nanonuclei")
    assert code == 1 and "no model 'nanonuclei' (did you mean 'nano-nuclei'?)" in err
    code, _, err = diffinst("train", "--data", tmp_path, "--preset", "r50coco")
    assert code == 1 and "no preset 'r50coco' (did you mean 'r50-coco'?)" in err
