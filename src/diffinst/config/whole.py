"""The whole configuration: from presets, files and flags, checked."""

from __future__ import annotations

import os
import reprlib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator
from typing_extensions import TypedDict, Unpack

from diffinst.config.explain import did_you_mean, explain
from diffinst.config.inference import (
    PostprocessConfig,
    PreprocessConfig,
    PromptConfig,
    SamplerConfig,
)
from diffinst.config.model import ModelConfig
from diffinst.config.part import ConfigError, Part
from diffinst.config.training import AugmentConfig, CriterionConfig, TrainConfig
from diffinst.config.yaml_file import YamlError, read_yaml


class ConfigParts(TypedDict, total=False):
    """Fields of a configuration by part, as plain values; parts within parts are dicts again."""

    model: dict[str, object]
    preprocess: dict[str, object]
    sampler: dict[str, object]
    postprocess: dict[str, object]
    prompts: dict[str, object]
    criterion: dict[str, object]
    augment: dict[str, object]
    train: dict[str, object]


class Config(Part):
    """Everything: saved whole next to the weights."""

    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    sampler: SamplerConfig = SamplerConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    prompts: PromptConfig = PromptConfig()
    criterion: CriterionConfig = CriterionConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _steps_fit_schedule(self) -> Config:
        steps, timesteps = self.sampler.steps, self.model.diffusion.timesteps
        if steps > timesteps:
            raise ValueError(
                f"sampler.steps is {steps}; allowed are 1 to {timesteps} (diffusion.timesteps)"
            )
        return self

    def check(self) -> None:
        """Refuse values that do not go together; not at construction, as flags give parts only.

        Raises:
            ConfigError: Names the fields and their values.
        """
        self.model.decoder.check()
        train, augment = self.train, self.augment
        candidates = self.criterion.matcher.candidates
        if candidates > train.proposals:
            raise ConfigError(
                f"criterion.matcher.candidates {candidates} is more than train.proposals "
                f"{train.proposals}; raise the proposals or lower the candidates"
            )
        low, high = augment.crop_range
        if low > high:
            raise ConfigError(f"augment.crop_range {low} to {high}: give the smaller side first")
        sides = augment.crop_short_sides
        if augment.crop_probability and sides and low > max(sides):
            raise ConfigError(
                f"augment.crop_range starts at {low}, larger than any image to crop from "
                f"(augment.crop_short_sides {', '.join(map(str, sides))}); lower it"
            )
        if augment.zoom[0] > augment.zoom[1]:
            raise ConfigError(
                f"augment.zoom {augment.zoom[0]} to {augment.zoom[1]}: give the smaller one first"
            )
        milestones = train.milestones
        if list(milestones) != sorted(milestones):
            raise ConfigError(
                f"train.milestones {', '.join(map(str, milestones))}: give them in ascending order"
            )
        if train.batch_size % train.accumulate:
            raise ConfigError(
                f"train.batch_size {train.batch_size} cannot be split into train.accumulate "
                f"{train.accumulate} equal micro-batches; choose a divisor"
            )
        if train.activation_checkpointing and self.model.backbone.norm == "train":
            raise ConfigError(
                "train.activation_checkpointing computes the backbone twice, and would count the "
                "statistics of model.backbone.norm 'train' twice; use norm 'frozen'"
            )

    @classmethod
    def from_preset(cls, name: str) -> Config:
        """The config of a preset by name.

        Args:
            name: One of `preset_names()`.

        Raises:
            ConfigError: No such preset.

        Example:
            >>> Config.from_preset("r50-coco").model.backbone.name
            'resnet50.tv_in1k'
        """
        if name not in preset_names():
            near = did_you_mean(name, preset_names())
            raise ConfigError(f"no preset '{name}'{near}; there are {', '.join(preset_names())}")
        text = (resources.files("diffinst") / "presets" / f"{name}.yaml").read_text("utf-8")
        return cls.from_dict(yaml.safe_load(text), source=f"preset {name}")

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """The config in a YAML or JSON file.

        A field `base` names a preset, or a file relative to this one, whose fields hold where the
        file says nothing.

        Raises:
            ConfigError: Missing, unreadable or with wrong fields; the message names file and field.
        """
        return cls._from_file(Path(path), ())

    @classmethod
    def _from_file(cls, path: Path, above: tuple[Path, ...]) -> Config:
        try:
            values = read_yaml(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except YamlError as error:
            raise ConfigError(f"{path}: is neither YAML nor JSON ({error})") from error
        if not isinstance(values, dict) or "base" not in values:
            return cls.from_dict(values, source=str(path))
        above = (*above, path.resolve())
        name = str(values.pop("base"))
        beside = path.parent / name
        if name in preset_names():
            base = cls.from_preset(name)
        elif not os.path.isfile(beside):  # False for a name that is too long, no error
            raise ConfigError(
                f"{path}: base {reprlib.repr(name)} is neither a preset "
                f"({', '.join(preset_names())}) nor a file beside it"
            )
        elif beside.resolve() in above:
            raise ConfigError(f"{path}: base '{name}' builds on this file itself")
        else:
            base = cls._from_file(beside, above)
        return cls.from_dict(_merged(base.to_dict(), values), source=str(path))

    @classmethod
    def from_dict(cls, values: object, *, source: str = "config") -> Config:
        """Validate plain values; `source` is named in errors."""
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise ConfigError(
                f"{source}: expected a mapping of fields, got {type(values).__name__}"
            )
        try:
            config = cls.model_validate(values)
            config.check()
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error, cls())}") from error
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `Config.from_dict(c.to_dict()) == c`."""
        return self.model_dump(mode="json")

    def updated(self, **parts: Unpack[ConfigParts]) -> Config:
        """A copy with fields of named parts replaced, validated anew.

        Example:
            >>> Config().updated(sampler={"steps": 4}).sampler.steps
            4
        """
        return Config.from_dict(_merged(self.to_dict(), dict(parts)))


def preset_names() -> tuple[str, ...]:
    """Names that `Config.from_preset` takes."""
    folder = resources.files("diffinst") / "presets"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml")))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if nested else value  # type: ignore[arg-type]
    return merged
