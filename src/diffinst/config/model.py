"""What the network is made of; fixed once weights exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffinst.config.part import ConfigError, Layers, Part, PositiveFloat, Rgb, Width

IMAGENET_MEAN: Rgb = (123.675, 116.28, 103.53)
IMAGENET_STD: Rgb = (58.395, 57.12, 57.375)


class BackboneConfig(Part):
    """The image encoder: any timm `features_only` backbone with outputs at strides 4, 8, 16, 32."""

    name: str = "resnet50.tv_in1k"
    """timm model name; Swin names run pad-first attention (models/backbone.py)."""
    weights_file: Path | None = None
    """Local ImageNet weights in timm's layout; None: timm's own, from the hub, at training."""
    norm: Literal["frozen", "train"] = "frozen"
    """BatchNorm: `frozen` keeps ImageNet statistics and affine (the paper), `train` learns."""
    freeze_levels: Annotated[int, Field(ge=0, le=4)] = 1
    """Everything up to the n-th pyramid output keeps its weights (1: stem and res2; Swin: 0)."""
    stride_in_1x1: bool = False
    """ResNets of bottlenecks: a stage's stride is in its first 1x1 convolution, not in the 3x3 one
    (Caffe's ResNets, detectron2's model zoo)."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth rate (Swin: 0.3)."""
    image_mean: Rgb = IMAGENET_MEAN
    image_std: Rgb = IMAGENET_STD


class MaskBranchConfig(Part):
    """From p2, p3, p4 to F_mask (paper, 3.3; stride 4)."""

    width: Width = 128
    channels: Width = 8
    """c, the channels of F_mask."""
    depth: Annotated[int, Field(ge=0, le=64)] = 4
    norm: Literal["batch", "sync", "group"] = "batch"


class FilterConfig(Part):
    """The instance-aware filter theta and where it is evaluated (Eq. 3)."""

    layers: Annotated[int, Field(ge=1, le=8)] = 3
    channels: Width = 8
    """Width of the hidden 1x1 convolutions."""
    coordinates: bool = False
    """Two channels of coordinates relative to the box in front of the filter (169 numbers)."""
    evaluate: Literal["map", "grid"] = "map"
    """`map`: on all of F_mask (the paper); `grid`: on points spread inside each box."""
    grid_train: Annotated[int, Field(ge=1, le=1024)] = 20
    grid_test: Annotated[int, Field(ge=1, le=1024)] = 28
    grid_margin: Annotated[float, Field(ge=0)] = 0.2
    """The grid covers the box enlarged by this fraction of its size."""


class DecoderConfig(Part):
    """The box and filter decoder (paper, 3.3 (3)); six stages with their own weights."""

    stages: Layers = 6
    width: Annotated[int, Field(ge=4, le=8192)] = 256
    """D; also the width of the pyramid."""
    dynamic_width: Width = 64
    heads: Width = 8
    feedforward: Width = 2048
    class_layers: Annotated[int, Field(ge=0, le=64)] = 1
    box_layers: Annotated[int, Field(ge=0, le=64)] = 3
    roi_size: Layers = 7
    roi_sampling: Layers = 2
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


class DiffusionConfig(Part):
    """The noise process over boxes (Eq. 1, 2)."""

    timesteps: Annotated[int, Field(ge=2, le=1_000_000)] = 1000
    scale: PositiveFloat = 2.0
    """Signal scale s: boxes live in [-s, s]."""
    size_pixels: PositiveFloat | None = None
    """Widths and heights in the signal are fractions of so many pixels of the network input; None:
    of the image (the paper). For small objects, whose boxes would start far too large."""
    noise: Literal["normal", "sobol"] = "normal"
    """`normal`: independent draws (the paper); `sobol`: low-discrepancy, centres uniform."""
    time_power: PositiveFloat = 1.0
    """Training times are T u^(1/power), u uniform: 1 is the paper, more prefers late times."""


class ModelConfig(Part):
    """The network and the process it was trained for; fixed once weights exist."""

    num_classes: Annotated[int, Field(ge=1, le=100_000)] = 80
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
