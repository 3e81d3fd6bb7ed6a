"""Every field of the configuration as a flag: grouped by part, with the values of a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Group, Parameter
from pydantic import create_model

from diffinst.config import Config, ConfigParts
from diffinst.config.part import Part

PRESET = "nano"  # training's own choice (training/train.py), which would bring torch along
PARTS = {  # in the order of the help text: what is changed most comes first
    "train": "Training: length, rates, batches",
    "augment": "Augmentation of training images",
    "preprocess": "Size of images at test time",
    "sampler": "Denoising at test time",
    "postprocess": "What is kept at test time",
    "prompts": "Objects that a person points at",
    "model": "The network, fixed once it is trained",
    "criterion": "Losses and matching",
}


def _with_defaults(part: Part) -> type[Part]:
    """The part's class, but with these values as defaults, so that the help text shows them."""
    fields = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Part):
            kind = _with_defaults(value)
            annotation: object = kind
            if isinstance(part, Config):
                annotation = Annotated[kind, Parameter(group=_GROUPS[name])]
            fields[name] = (annotation, kind())
        else:
            fields[name] = (field.rebuild_annotation(), value)
    made = create_model(type(part).__name__, __base__=type(part), **fields)  # type: ignore[call-overload]
    return cast("type[Part]", made)


_GROUPS = {
    name: Group(text, sort_key=i, help=f"Values of the preset {PRESET}.")
    for i, (name, text) in enumerate(PARTS.items(), start=1)
}

if TYPE_CHECKING:
    Fields = Config
else:
    Fields = _with_defaults(Config.from_preset(PRESET))

Overrides = Annotated[Fields | None, Parameter(name="*", negative_none="no-")]


def given(fields: Config | None) -> ConfigParts:
    """The fields given as flags, and only those."""
    values = {} if fields is None else fields.model_dump(mode="json", exclude_unset=True)
    return cast("ConfigParts", values)
