"""What to lower when a prediction does not fit into memory."""

from __future__ import annotations

from diffinst.config import Options


def advice(size: tuple[int, int], images: int, options: Options, *, exact: bool) -> str:
    """What to change and by how much, what changes no result first.

    Args:
        size: (height, width) of the padded network input.
        images: In the batch.
        options: What the prediction was asked for.
        exact: Whether it runs in float32.
    """
    steps = []
    if images > 1:
        steps.append(f"hand over fewer images at once (are {images}; one takes 1/{images})")
    if exact:
        steps.append("use bf16, optimize('bf16') or --precision bf16 (about half)")
    steps.append(f"lower proposals (are {options.proposals}; the decoder's part follows them)")
    if options.noises > 1:
        steps.append(f"lower noises (are {options.noises}; runs go together where they fit)")
    if options.max_detections > 100:
        steps.append(f"lower max_detections (is {options.max_detections})")
    half = max(size) // 2
    steps.append(
        f"lower preprocess.long_side in the model's config.json (the network sees "
        f"{size[0]}x{size[1]} pixels; {half} takes about a quarter of it)"
    )
    return "; or ".join(steps)
