"""What can be configured, and what the paper's values are.

One frozen pydantic model per part; a module takes its own part only. No torch in here. The defaults
are the paper's R50 model on COCO; where the paper, its published configs and our own improvements
differ, the difference is one named field, and the presets choose.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rgb = tuple[float, float, float]

IMAGENET_MEAN: Rgb = (123.675, 116.28, 103.53)
IMAGENET_STD: Rgb = (58.395, 57.12, 57.375)


class ConfigError(ValueError):
    """A configuration that cannot be: names the field, the value and what is allowed."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneConfig(_Part):
    """The image encoder: any timm `features_only` backbone with outputs at strides 4, 8, 16, 32."""

    name: str = "resnet50"
    """timm model name; Swin names run pad-first attention (models/backbone.py)."""
    weights_file: Path | None = None
    """Local ImageNet weights in timm's layout; None: timm's own, from the hub, at training."""
    norm: Literal["frozen", "train"] = "frozen"
    """BatchNorm: `frozen` keeps ImageNet statistics and affine (the paper), `train` learns."""
    freeze_levels: Annotated[int, Field(ge=0, le=4)] = 1
    """Everything up to the n-th pyramid output keeps its weights (1: stem and res2; Swin: 0)."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth rate (Swin: 0.3)."""
    image_mean: Rgb = IMAGENET_MEAN
    image_std: Rgb = IMAGENET_STD


class MaskBranchConfig(_Part):
    """From p2, p3, p4 to F_mask (paper, 3.3; stride 4)."""

    width: PositiveInt = 128
    channels: PositiveInt = 8
    """c, the channels of F_mask."""
    depth: Annotated[int, Field(ge=0)] = 4
    norm: Literal["batch", "sync", "group"] = "batch"


class FilterConfig(_Part):
    """The instance-aware filter theta and where it is evaluated (Eq. 3)."""

    layers: Annotated[int, Field(ge=1, le=8)] = 3
    channels: PositiveInt = 8
    """Width of the hidden 1x1 convolutions."""
    coordinates: bool = False
    """Two channels of coordinates relative to the box in front of the filter (169 numbers)."""
    evaluate: Literal["map", "grid"] = "map"
    """`map`: on all of F_mask (the paper); `grid`: on points spread inside each box."""
    grid_train: PositiveInt = 20
    grid_test: PositiveInt = 28
    grid_margin: Annotated[float, Field(ge=0)] = 0.2
    """The grid covers the box enlarged by this share of its size."""


class DecoderConfig(_Part):
    """The box and filter decoder (paper, 3.3 (3)); six stages with their own weights."""

    stages: PositiveInt = 6
    width: Annotated[int, Field(ge=4)] = 256
    """D; also the width of the pyramid."""
    dynamic_width: PositiveInt = 64
    heads: PositiveInt = 8
    feedforward: PositiveInt = 2048
    class_layers: Annotated[int, Field(ge=0)] = 1
    box_layers: Annotated[int, Field(ge=0)] = 3
    roi_size: PositiveInt = 7
    roi_sampling: PositiveInt = 2
    """Bilinear samples per RoI bin and axis."""
    zero_init_deltas: bool = False
    """Start box refinement at the identity instead of Xavier-uniform (helps small data)."""

    def check(self) -> None:
        """Refuse sizes that do not go together; not at construction, as flags give parts only.

        Raises:
            ConfigError: Names both fields.
        """
        if self.width % self.heads or self.width % 2:
            raise ConfigError(
                f"decoder.width {self.width} must be even and a multiple of "
                f"decoder.heads {self.heads}"
            )


class DiffusionConfig(_Part):
    """The noise process over boxes (Eq. 1, 2)."""

    timesteps: Annotated[int, Field(ge=2)] = 1000
    scale: PositiveFloat = 2.0
    """Signal scale s: boxes live in [-s, s]."""
    size_pixels: PositiveFloat | None = None
    """Widths and heights in the signal are shares of so many pixels of the network input; None: of
    the picture (the paper). For small objects, whose boxes would otherwise start far too large."""
    noise: Literal["normal", "sobol"] = "normal"
    """`normal`: independent draws (the paper); `sobol`: low-discrepancy, centres uniform."""
    time_power: PositiveFloat = 1.0
    """Training times are T u^(1/power), u uniform: 1 is the paper, more prefers late times."""


class ModelConfig(_Part):
    """The network and the process it was trained for; fixed once weights exist."""

    num_classes: PositiveInt = 80
    class_names: tuple[str, ...] = ()
    """One name per class, or empty: `class 0`, `class 1`, ..."""
    backbone: BackboneConfig = BackboneConfig()
    mask_branch: MaskBranchConfig = MaskBranchConfig()
    filters: FilterConfig = FilterConfig()
    decoder: DecoderConfig = DecoderConfig()
    diffusion: DiffusionConfig = DiffusionConfig()

    @model_validator(mode="after")
    def _names_match(self) -> ModelConfig:
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"{len(self.class_names)} class_names for num_classes={self.num_classes}; "
                "give one name per class or none"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """One display name per class."""
        return self.class_names or tuple(f"class {i}" for i in range(self.num_classes))


class PreprocessConfig(_Part):
    """How a picture becomes the network input at test time."""

    short_side: PositiveInt | None = 800
    """Resize the short side to this; None: multiply by `zoom` instead."""
    zoom: PositiveFloat = 1.0
    long_side: PositiveInt = 1333
    """The long side never exceeds this."""


class SamplerConfig(_Part):
    """DDIM sampling at test time; every field is free, the weights stay the same."""

    steps: PositiveInt = 1
    proposals: PositiveInt = 500
    eta: Probability = 1.0
    renewal_threshold: Probability = 0.5
    """Proposals whose best class probability is not above this start again from noise."""
    ensemble: Literal["all", "official", "last"] = "all"
    """Steps that enter the result; `official` drops the last one as the published code does."""
    early_stop: Probability | None = None
    """A picture stops when its confident boxes overlap those of the step before by this IoU."""
    nms_iou: Probability = 0.5


class PostprocessConfig(_Part):
    """From the sampler's pool of predictions to what the user gets."""

    threshold: Probability = 0.0
    max_detections: PositiveInt = 100
    mask_threshold: Probability = 0.5


class MatcherConfig(_Part):
    """Dynamic-k matching cost (DiffusionDet's; reference/MODEL.md, Matching cost)."""

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    candidates: PositiveInt = 5
    """k of an object is the whole part of the sum of its `candidates` largest IoUs."""
    l1_unit: Literal["picture", "object"] = "picture"
    """L1 cost and loss in shares of the picture (the paper) or of the object's own size."""


class CriterionConfig(_Part):
    """The training objective (Eq. 5): weights are applied once, here."""

    class_loss: Literal["focal", "federated_focal", "federated_bce"] = "focal"
    class_target: Literal["one", "iou"] = "one"
    """Target of a matched query's class: 1 (the paper), or its box IoU (quality-aware ranking)."""
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    mask_weight: float = 5.0
    """lambda."""
    mask_stages: Literal["all", "last"] = "all"
    federated_classes: PositiveInt = 50
    federated_power: float = 0.5
    matcher: MatcherConfig = MatcherConfig()


class AugmentConfig(_Part):
    """Training augmentation (paper, 4.1): flip, then perhaps resize and crop, then resize."""

    flip: Probability = 0.5
    transpose: Probability = 0.0
    """Swap rows and columns (with the flip: all eight orientations), for pictures without an up."""
    vertical_flip: Probability = 0.0
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and saturation jitter."""
    crop_probability: Probability = 0.5
    crop_short_sides: tuple[PositiveInt, ...] = (400, 500, 600)
    """Short side before the crop; empty: no resize."""
    crop_range: tuple[PositiveInt, PositiveInt] = (384, 600)
    short_sides: tuple[PositiveInt, ...] = tuple(range(480, 801, 32))
    """Short side after the crop; empty: no resize."""
    zoom: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of a factor drawn before the crop; (1, 1): none."""
    long_side: PositiveInt = 1333


class TrainConfig(_Part):
    """Optimisation (paper, 4.1; reference/MODEL.md, Training)."""

    iterations: PositiveInt = 225_000
    milestones: tuple[PositiveInt, ...] = (175_000, 210_000)
    schedule: Literal["multistep", "cosine"] = "multistep"
    warmup: Annotated[int, Field(ge=0)] = 1000
    warmup_factor: Probability = 0.01
    lr: PositiveFloat = 5e-5
    batch_size: PositiveInt = 32
    """Pictures an optimiser step."""
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_norm: PositiveFloat = 1.0
    proposals: PositiveInt = 500
    precision: Literal["32", "bf16"] = "32"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0: none."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Iterations between evaluations on val; 0: only at the end."""
    checkpoint_every: PositiveInt = 250
    """Iterations between checkpoints to resume from."""
    log_every: PositiveInt = 20
    workers: Annotated[int, Field(ge=0)] = 2
    seed: int = 0


class Config(_Part):
    """Everything: saved whole next to the weights."""

    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    sampler: SamplerConfig = SamplerConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
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

    @classmethod
    def from_preset(cls, name: str) -> Config:
        """The config of a preset by name.

        Args:
            name: One of `preset_names()`.

        Raises:
            ConfigError: No such preset.

        Example:
            >>> Config.from_preset("r50-coco").model.backbone.name
            'resnet50'
        """
        if name not in preset_names():
            raise ConfigError(f"no preset '{name}'; there are {', '.join(preset_names())}")
        text = (resources.files("diffinst") / "presets" / f"{name}.yaml").read_text("utf-8")
        return cls.from_dict(yaml.safe_load(text), source=f"preset {name}")

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """The config in a YAML or JSON file.

        Raises:
            ConfigError: Missing, unreadable or with wrong fields; the message names file and field.
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is neither YAML nor JSON ({error})") from error
        return cls.from_dict(values, source=str(path))

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
            config.model.decoder.check()
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error)}") from error
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `Config.from_dict(c.to_dict()) == c`."""
        return self.model_dump(mode="json")

    def updated(self, **parts: dict[str, object]) -> Config:
        """A copy with fields of named parts replaced, validated anew.

        Example:
            >>> Config().updated(sampler={"steps": 4}).sampler.steps
            4
        """
        return Config.from_dict(_merged(self.to_dict(), parts))


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


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown field '{field}'; fields are described in diffinst/config.py")
        elif item["type"] == "value_error":  # from a validator here: it names its fields and values
            lines.append(str(item["ctx"]["error"]))
        else:
            lines.append(f"{field}: {item['msg']} (got {item.get('input')!r})")
    return "; ".join(lines)
