"""What to lower when training does not fit into memory."""

from __future__ import annotations

from diffinst.config import Config


def advice(config: Config) -> str:
    """Fields to change, the one that costs least first."""
    train, criterion = config.train, config.criterion
    steps = []
    if train.batch_size > train.accumulate:
        steps.append(
            f"raise train.accumulate (is {train.accumulate}; same result, a smaller part of the "
            f"batch of {train.batch_size} at a time)"
        )
    if not train.activation_checkpointing and config.model.backbone.norm == "frozen":
        steps.append("set train.activation_checkpointing (same result, slower)")
    if config.model.filters.evaluate == "map" and criterion.mask_chunk is None:
        steps.append("set criterion.mask_chunk, to 64 for example (same result, slower)")
    if train.precision == "32":
        steps.append("set train.precision to bf16")
    sides = config.augment.short_sides
    if sides:
        steps.append(f"lower augment.short_sides (up to {max(sides)})")
    if config.augment.crop_probability:
        steps.append(f"lower augment.crop_range (up to {config.augment.crop_range[1]})")
    steps.append(f"lower train.proposals (is {train.proposals})")
    return "; or ".join(steps)
