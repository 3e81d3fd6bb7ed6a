"""The denoising film strip: noise boxes, each decoder stage, each step, the result (Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.trace import TracePoint
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageSource
from diffinst.results.render.film import Frame, film_strip


def strip_frames(
    trace: Sequence[TracePoint], threshold: float, stages: Sequence[int] | None = None
) -> list[Frame]:
    """Frames of a trace: boxes where a step starts, then masks above the threshold stage by stage.

    Args:
        trace: From `DiffusionInst.trace`.
        threshold: Masks are shown from this score on.
        stages: Decoder stages to show; None: all.
    """
    frames = []
    for point in trace:
        if point.stage < 0:
            title = f"step {point.step + 1}, t = {point.time}: boxes in"
            frames.append(Frame(title, point.instances, boxes_only=True))
        elif stages is None or point.stage in stages:
            shown = point.instances.above(threshold)
            frames.append(Frame(f"step {point.step + 1}, stage {point.stage + 1}", shown))
    return frames


def denoising_strip(
    model: DiffusionInst,
    image: ImageSource,
    path: str | Path,
    *,
    steps: int = 1,
    proposals: int | None = None,
    threshold: float = 0.5,
    stages: Sequence[int] | None = None,
    seed: int = 0,
) -> Image.Image:
    """Draw how an image is segmented, from noise to result, and save it.

    Args:
        model: Loaded weights.
        image: As in `predict`.
        path: A .png or .jpg file, written atomically.
        steps: Denoising steps.
        proposals: Boxes to start from.
        threshold: Masks are shown from this score on.
        stages: Decoder stages to show; None: the first, the middle and the last.
        seed: Of the noise.

    Raises:
        ValueError: Another suffix.

    Returns:
        The strip: boxes and masks at each step and stage, then the result of all steps together.
    """
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: a film strip is a .png or a .jpg file")
    encoded = model.encode(image)
    if stages is None:
        last = model.config.model.decoder.stages - 1
        stages = sorted({0, last // 2, last})
    moments = list(encoded.trace(steps=steps, proposals=proposals, threshold=threshold, seed=seed))
    frames = strip_frames([p for points, _ in moments for p in points], threshold, stages)
    frames.append(Frame("result", moments[-1][1]))
    strip = film_strip(encoded.image, frames)
    with atomic_path(path) as temporary:
        strip.save(temporary, format=kind)
    return strip
