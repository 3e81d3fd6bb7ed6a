"""What to lower when a prediction does not fit into memory."""

from __future__ import annotations

from diffinst.config import Config


def advice(size: tuple[int, int], images: int, config: Config, *, exact: bool) -> str:
    """What to change and by how much, what changes no result first.

    Args:
        size: (height, width) of the padded network input.
        images: In the batch.
        config: What the prediction was asked for.
        exact: Whether it runs in float32.
    """
    steps = []
    if images > 1:
        steps.append(f"hand over fewer images at once (are {images}; one takes 1/{images})")
    if exact:
        steps.append("use bf16, optimize('bf16') or --precision bf16 (about half)")
    sampler = config.sampler
    steps.append(f"lower proposals (are {sampler.proposals}; the decoder's share follows them)")
    if config.postprocess.max_detections > 100:
        steps.append(f"lower max_detections (is {config.postprocess.max_detections})")
    half = max(size) // 2
    steps.append(
        f"lower preprocess.long_side in the model's config.json (the network sees "
        f"{size[0]}x{size[1]} pixels; {half} takes about a quarter of it)"
    )
    return "; or ".join(steps)
