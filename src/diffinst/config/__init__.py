"""What can be configured, and what the paper's values are.

One frozen pydantic model per part; a module takes its own part only. No torch in here. The defaults
are the paper's R50 model on COCO; where the paper, its published configs and our own improvements
differ, the difference is one named field, and the presets choose.
"""

from __future__ import annotations

from diffinst.config.inference import (
    PostprocessConfig,
    PreprocessConfig,
    PromptConfig,
    Reading,
    SamplerConfig,
)
from diffinst.config.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneConfig,
    DecoderConfig,
    DiffusionConfig,
    FilterConfig,
    MaskBranchConfig,
    ModelConfig,
)
from diffinst.config.options import OptionFields, Options, PromptFields
from diffinst.config.part import ConfigError
from diffinst.config.training import (
    AugmentConfig,
    CriterionConfig,
    MatcherConfig,
    StartsConfig,
    TrainConfig,
)
from diffinst.config.whole import Config, ConfigParts, preset_names

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "ConfigError",
    "ConfigParts",
    "CriterionConfig",
    "DecoderConfig",
    "DiffusionConfig",
    "FilterConfig",
    "MaskBranchConfig",
    "MatcherConfig",
    "ModelConfig",
    "OptionFields",
    "Options",
    "PostprocessConfig",
    "PreprocessConfig",
    "PromptConfig",
    "PromptFields",
    "Reading",
    "SamplerConfig",
    "StartsConfig",
    "TrainConfig",
    "preset_names",
]
