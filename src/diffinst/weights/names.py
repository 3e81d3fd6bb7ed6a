"""Other projects' names of tensors, and ours for them: detectron2, DiffusionInst, Swin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

BODY = "backbone.body."
Rename: TypeAlias = str | Callable[[re.Match[str]], str]

# Applied in turn to detectron2's ResNet keys; what is left of `.norm.` differs between targets.
RESNET_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^stem\.(?=conv1\.)", ""),
    (r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}."),
    (r"\.shortcut\.", ".downsample.0."),
)
FROZEN_NORM = (
    r"(conv\d|\.downsample\.0)\.norm\.(?:running_)?(weight|bias|mean|var)$",
    r"\1.norm_\2",
)
TRAINED_NORM = (
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"\.downsample\.0\.norm\.", ".downsample.1."),
)
SWIN_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^layers\.(\d)\.downsample\.", lambda m: f"layers_{int(m[1]) + 1}.downsample."),
    (r"^layers\.(\d)\.", r"layers_\1."),
)
STAGE_RENAMES = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj.": "attention.out.",
    "inst_interact.dynamic_layer.": "interaction.parameters_of.",
    "inst_interact.out_layer.": "interaction.out.",
    "inst_interact.norm": "interaction.norm",
    "linear1.": "expand.",
    "linear2.": "contract.",
    "norm": "norm",
    "block_time_mlp.1.": "time.",
    "cls_module.": "class_tower.",
    "reg_module.": "box_tower.",
    "class_logits.": "class_logits.",
    "bboxes_delta.": "deltas.",
    "controller.": "filters.",
}
HEAD_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^head\.mask_refine\.", "mask_branch.refine."),
    (r"^head\.mask_head\.\d+\.(weight|bias)$", r"mask_branch.out.\1"),
    (r"^head\.mask_head\.", "mask_branch.tower."),
    (r"^head\.time_mlp\.1\.", "decoder.time.layers.0."),
    (r"^head\.time_mlp\.3\.", "decoder.time.layers.2."),
    (
        r"^backbone\.fpn_(lateral|output)([2-5])\.",
        lambda m: f"fpn.{m[1]}s.{int(m[2]) - 2}.",
    ),
    (r"^backbone\.bottom_up\.norm([0-3])\.", r"backbone.norms.\1."),
)


def renamed(key: str, renames: Sequence[tuple[str, Rename]]) -> str:
    """A key after some renames, one after the other."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def official_name(key: str) -> str:
    """Our name of an official key; what is not known stays and is reported later."""
    stage = re.match(r"^head\.head_series\.(\d+)\.(.+)$", key)
    if stage:
        index, rest = stage.groups()
        for theirs, ours in STAGE_RENAMES.items():
            if rest.startswith(theirs):
                return f"decoder.stages.{index}.{ours}{rest.removeprefix(theirs)}"
        return key
    body = key.removeprefix("backbone.bottom_up.")
    if body == key or re.match(r"norm[0-3]\.", body):
        return renamed(key, HEAD_RENAMES)
    return BODY + renamed(body, (*RESNET_RENAMES, FROZEN_NORM, *SWIN_RENAMES))
