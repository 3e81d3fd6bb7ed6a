"""How a network is trained: objective, augmentation, optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from diffinst.config.part import (
    Part,
    PositiveFloat,
    PositiveInt,
    Probability,
    Proposals,
    Side,
)


class MatcherConfig(Part):
    """Dynamic-k matching cost (DiffusionDet's)."""

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    candidates: PositiveInt = 5
    """k of an object is the whole part of the sum of its `candidates` largest IoUs."""
    l1_unit: Literal["image", "object"] = "image"
    """L1 cost and loss in fractions of the image (the paper) or of the object's own size."""

    @field_validator("l1_unit", mode="before")
    @classmethod
    def _named_otherwise_before_0_2(cls, value: object) -> object:
        return "image" if value == "picture" else value


class CriterionConfig(Part):
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
    mask_chunk: PositiveInt | None = None
    """At most so many masks are held at once; the others are computed again in the backward pass
    (the same loss and gradient, less memory, more time). None: no limit."""
    pairs: Literal["step", "local"] = "step"
    """Losses are divided by the matched pairs of the whole optimiser step, averaged over processes
    and micro-batches (any split gives the same gradient), or by those at hand (`local`)."""
    federated_classes: PositiveInt = 50
    federated_power: float = 0.5
    matcher: MatcherConfig = MatcherConfig()


class AugmentConfig(Part):
    """Training augmentation (paper, 4.1): flip, then perhaps resize and crop, then resize."""

    flip: Probability = 0.5
    transpose: Probability = 0.0
    """Swap rows and columns (with the flip: all eight orientations), for images without an up."""
    vertical_flip: Probability = 0.0
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and saturation jitter."""
    stain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Jitter of the optical density of images in colour, as another dye or section would have."""
    crop_probability: Probability = 0.5
    crop_short_sides: tuple[Side, ...] = (400, 500, 600)
    """Short side before the crop; empty: no resize."""
    crop_range: tuple[Side, Side] = (384, 600)
    short_sides: tuple[Side, ...] = tuple(range(480, 801, 32))
    """Short side after the crop; empty: no resize."""
    zoom: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of a factor drawn before the crop; (1, 1): none."""
    long_side: Side = 1333


class StartsConfig(Part):
    """What boxes a training image starts from: one of four kinds, drawn for each image.

    The rest to 1 starts as in the paper: its objects and placeholders, noised to one time (Eq. 4).
    """

    prior: Probability = 0.0
    """Noise alone, drawn as at test, at time T - 1."""
    own: Probability = 0.0
    """The model's own first step from noise: what it found goes on at time 0, beside boxes of the
    same noise. Costs one more decoder pass without gradient (two with micro-batches)."""
    near: Probability = 0.0
    """Boxes near some of the objects, moved and scaled relative to their own size, at a low time,
    beside fresh noise. Each stays with its object in matching: what prompts ask for."""
    own_scores: tuple[Probability, Probability] = (0.1, 0.4)
    """`own`: the score from which on a box counts as found is drawn between these."""
    near_time: Annotated[int, Field(ge=0)] = 200
    """`near`: the time of the farthest boxes; closer ones get less in proportion."""

    @model_validator(mode="after")
    def _fractions_of_one(self) -> StartsConfig:
        total = self.prior + self.own + self.near
        if total > 1 + 1e-9:
            raise ValueError(
                f"train.starts: prior {self.prior:g} + own {self.own:g} + near {self.near:g} is "
                f"{total:g}; they are fractions of the images, 1 at most together"
            )
        return self


class TrainConfig(Part):
    """Optimisation (paper, 4.1)."""

    iterations: PositiveInt = 225_000
    milestones: tuple[PositiveInt, ...] = (175_000, 210_000)
    schedule: Literal["multistep", "cosine"] = "multistep"
    warmup: Annotated[int, Field(ge=0)] = 1000
    warmup_factor: Probability = 0.01
    lr: PositiveFloat = 5e-5
    batch_size: PositiveInt = 32
    """Images an optimiser step, over all processes and micro-batches."""
    accumulate: PositiveInt = 1
    """Micro-batches that a process splits its part of a batch into, one in memory at a time."""
    scaling: Literal["none", "linear"] = "none"
    """`linear`: lr times batch_size / reference_batch_size; iterations, milestones and warm-up
    divided by it, so that as many images are seen."""
    reference_batch_size: PositiveInt = 32
    """The batch size that lr, iterations, milestones and warm-up are meant for."""
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_norm: PositiveFloat = 1.0
    proposals: Proposals = 500
    precision: Literal["32", "bf16"] = "32"
    activation_checkpointing: bool = False
    """Backbone and decoder compute their activations again in the backward pass."""
    freeze: tuple[Literal["backbone", "fpn", "mask_branch", "decoder"], ...] = ()
    """Parts that keep their weights (the backbone's first levels: backbone.freeze_levels)."""
    starts: StartsConfig = StartsConfig()
    repeat_colour: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Images in colour are shown this many times as often as grey ones (few stained sections among
    many grey images)."""
    repeat_threshold: Probability = 0.0
    """Images with classes on a smaller fraction of images than this are repeated (LVIS: 0.001)."""
    single_class: bool = False
    """Take all classes of the data as one, named "object"."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0: none."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Iterations between evaluations on val; 0: only at the end."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this number of evaluations without a better mask AP; 0: never."""
    checkpoint_every: PositiveInt = 250
    """Iterations between checkpoints to resume from."""
    bad_steps: PositiveInt = 10
    """Steps with a loss or gradient that is not finite are skipped; so many in a row are an
    error."""
    log_every: PositiveInt = 20
    loggers: tuple[Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"], ...] = (
        "csv",
        "tensorboard",
    )
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def scaled(self) -> TrainConfig:
        """What the scaling rule makes of these values for `batch_size`; itself scaled no more.

        Example:
            >>> train = TrainConfig(batch_size=2, scaling="linear").scaled()
            >>> train.lr, train.iterations, train.milestones
            (3.125e-06, 3600000, (2800000, 3360000))
        """
        if self.scaling == "none":
            return self
        times = self.batch_size / self.reference_batch_size
        return self.model_copy(
            update={
                "lr": self.lr * times,
                "iterations": max(1, round(self.iterations / times)),
                "milestones": tuple(max(1, round(m / times)) for m in self.milestones),
                "warmup": round(self.warmup / times),
                "scaling": "none",
                "reference_batch_size": self.batch_size,
            }
        )
