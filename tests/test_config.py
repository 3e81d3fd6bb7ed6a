"""Do configurations say what is wrong with them, and survive being written down?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from diffinst.config import (
    Config,
    ConfigError,
    ModelConfig,
    Reading,
    TrainConfig,
    preset_names,
)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_json(name: str) -> None:
    config = Config.from_preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_there_are_presets() -> None:
    assert {"r50-coco", "tiny", "nano"} <= set(preset_names())


def test_defaults_are_the_paper() -> None:
    named = Config.from_preset("r50-coco")
    assert named.train.scaling == "linear"  # the batch size is the user's, the rest goes with it
    unscaled = named.updated(model={"class_names": []}, train={"scaling": "none"})
    assert unscaled == Config()
    assert Config.from_dict({}) == Config.from_dict(None) == Config()


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'r51'; there are .*r50-coco"):
        Config.from_preset("r51")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_round_trip(tmp_path: Path, suffix: str) -> None:
    config = Config.from_preset("tiny").updated(
        model={
            "num_classes": 2,
            "class_names": ["cat", "dog"],
            "backbone": {"weights_file": "a/b.pth"},
        }
    )
    path = tmp_path / f"config{suffix}"
    write = yaml.safe_dump if suffix == ".yaml" else json.dumps
    path.write_text(write(config.to_dict()))
    assert Config.from_file(path) == config
    assert config.model.backbone.weights_file == Path("a/b.pth")


def test_a_wrong_file_is_named_together_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sampler: {step: 4}\ntrain: {lr: -1}\n")
    with pytest.raises(ConfigError) as caught:
        Config.from_file(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "unknown field 'sampler.step'" in message
    assert "train.lr" in message and "-1" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1, 2]", "expected a mapping of fields, got list"), ("a: [", "neither YAML nor JSON")],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"mine.yaml: .*{message}"):
        Config.from_file(path)


def test_a_file_may_build_on_a_preset_or_on_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: nano\ntrain: {lr: 0.1}\n")
    (tmp_path / "shorter.yaml").write_text("base: mine.yaml\ntrain: {iterations: 7}\n")
    config = Config.from_file(tmp_path / "shorter.yaml")
    assert config.train.iterations == 7 and config.train.lr == 0.1
    assert config.model == Config.from_preset("nano").model


def test_a_base_that_is_not_there_or_the_file_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: r50\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: base 'r50' is neither a preset .*r50-coco"):
        Config.from_file(path)
    path.write_text("base: mine.yaml\n")
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: base 'mine.yaml' builds on this file itself"
    ):
        Config.from_file(path)


def test_linear_scaling_sees_as_many_images_at_a_rate_that_goes_with_the_batch() -> None:
    train = TrainConfig(batch_size=8, scaling="linear").scaled()  # a quarter of 32
    assert train.lr == 5e-5 / 4
    assert (train.iterations, train.milestones, train.warmup) == (900_000, (700_000, 840_000), 4000)
    assert train.scaled() == train  # once only
    assert TrainConfig(batch_size=8).scaled().lr == 5e-5  # no rule, no change


def test_a_binary_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(ConfigError, match=r"weights.pth: cannot be read \(No such file"):
        Config.from_file(path)
    path.write_bytes(b"\x80\x81\xff\x00")
    with pytest.raises(ConfigError, match=r"weights.pth: is neither YAML nor JSON"):
        Config.from_file(path)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model": {"num_classes": 0}}, "model.num_classes"),
        ({"model": {"decoder": {"heads": 3}}}, "multiple of decoder.heads 3"),
        ({"train": {"lr": float("inf")}}, "train.lr: Input should be a finite number"),
        ({"criterion": {"l1_weight": float("nan")}}, "criterion.l1_weight: Input should be a fin"),
        ({"sampler": {"steps": True}}, "sampler.steps: true and false are no numbers (got True)"),
        ({"sampler": {"early_stop": False}}, "sampler.early_stop: true and false are no numbers"),
        ({"augment": {"crop_range": [True, 2]}}, "augment.crop_range: true and false are no num"),
        ({"train": {"milestones": [9, 8]}}, "train.milestones 9, 8: give them in ascending order"),
        ({"model": {"decoder": {"width": 33, "heads": 3}}}, "must be even"),
        ({"model": {"num_classes": 2, "class_names": ["cat"]}}, "1 class_names for num_classes=2"),
        ({"model": {"filters": {"evaluate": "points"}}}, "model.filters.evaluate"),
        ({"model": {"diffusion": {"timesteps": 1}}}, "model.diffusion.timesteps"),
        ({"model": {"diffusion": {"scale": 0}}}, "model.diffusion.scale"),
        ({"model": {"diffusion": {"size_pixels": float("nan")}}}, "model.diffusion.size_pixels"),
        ({"model": {"backbone": {"image_mean": [1, 2]}}}, "model.backbone.image_mean"),
        ({"sampler": {"steps": 0}}, "sampler.steps"),
        ({"sampler": {"eta": 1.1}}, "sampler.eta"),
        ({"sampler": {"ensemble": "best"}}, "sampler.ensemble"),
        ({"sampler": 4}, "sampler"),
        ({"postprocess": {"threshold": "high"}}, "postprocess.threshold"),
        ({"criterion": {"class_loss": "softmax"}}, "criterion.class_loss"),
        ({"criterion": {"matcher": {"candidates": 0}}}, "criterion.matcher.candidates"),
        ({"augment": {"short_sides": [0]}}, "augment.short_sides.0"),
        ({"train": {"ema": 1.0}}, "train.ema"),
        ({"train": {"batch_size": 1.5}}, "train.batch_size"),
        ({"trian": {}}, "unknown field 'trian'; did you mean 'train'?"),
        ({"train": {"itertions": 1}}, "did you mean 'train.iterations'?"),
        ({"train": {"steps": 1}}, "did you mean 'sampler.steps'?"),  # right name, wrong part
        ({"sampler": {"wings": 1}}, "sampler has kind, steps, most_steps"),
        ({"train": {"proposals": 4}}, "candidates 5 is more than train.proposals 4"),
        ({"augment": {"crop_range": [512, 384]}}, "crop_range 512 to 384"),
        ({"augment": {"crop_range": [601, 700]}}, "larger than any image to crop from"),
        ({"augment": {"zoom": [2.0, 1.0]}}, "augment.zoom 2.0 to 1.0"),
        ({"train": {"batch_size": 6, "accumulate": 4}}, "into train.accumulate 4"),
        (
            {
                "train": {"activation_checkpointing": True},
                "model": {"backbone": {"norm": "train"}},
            },
            "use norm 'frozen'",
        ),
    ],
)
def test_impossible_values_are_named(values: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(values, source="run.yaml")
    assert str(caught.value).startswith("run.yaml: ") and field in str(caught.value)


def test_errors_stay_short_whatever_they_have_to_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"sampler": dict.fromkeys(map(str, range(9)), 1)})
    assert str(caught.value).count("unknown field") == 5
    assert str(caught.value).endswith("; and 4 more")
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"train": {"lr": Config().to_dict()}})
    assert "train.lr: Input should be a valid number (got {" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["x" * 5000, "\u202e", "a\nb"])
def test_a_base_of_no_name_is_quoted_in_one_short_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"base": name}), encoding="utf-8")
    with pytest.raises(ConfigError, match="neither a preset") as caught:
        Config.from_file(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_updates_change_only_what_they_name_and_are_validated() -> None:
    config = Config.from_preset("tiny")
    changed = config.updated(model={"decoder": {"stages": 4}}, sampler={"steps": 3})
    assert changed.model.decoder.stages == 4 and changed.sampler.steps == 3
    assert changed.model.decoder.width == config.model.decoder.width
    assert changed.train == config.train and config.sampler.steps == 1
    with pytest.raises(ConfigError, match=r"unknown field 'model\.decoder\.depth'"):
        config.updated(model={"decoder": {"depth": 4}})


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().sampler.steps = 4  # type: ignore[misc]


def test_names_of_unnamed_classes() -> None:
    assert ModelConfig(num_classes=2).names == ("class 0", "class 1")
    assert ModelConfig(num_classes=1, class_names=("cat",)).names == ("cat",)


def test_reading_a_configuration_needs_no_torch() -> None:
    code = """
import sys
from diffinst.config import Config
Config.from_preset("tiny")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_value_that_was_named_otherwise_is_still_read() -> None:
    old = Config.from_dict({"criterion": {"matcher": {"l1_unit": "picture"}}})
    assert old.criterion.matcher.l1_unit == "image"


def test_what_is_read_is_as_asked_and_else_as_the_model_has_it() -> None:
    own = Config().updated(preprocess={"stretch": "full", "project": "max"}).preprocess
    assert Reading().over(own) == Reading(stretch="full", project="max")
    assert Reading(page=3).over(own) == Reading(stretch="full", page=3)
    assert Reading(stretch="percentile").over(own) == Reading(project="max")
    with pytest.raises(ConfigError, match="page 3 chooses one page, project 'max' takes all; give"):
        Reading.of(page=3, project="max", channel=None)
    with pytest.raises(ConfigError, match=r"page: Input should be greater .* \(got -1\)"):
        Reading.of(page=-1)
