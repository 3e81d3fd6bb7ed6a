"""How well a model finds the object that a start points at: boxes a person might draw, and clicks.

    python benchmarks/prompts.py --data DATA --model nano-nuclei --out results.json

All objects of an image are asked for at once, in one step, each by one start; the result of a
start is what its own proposal became. Box starts are off by a fraction of the object's size in
place and size; clicks lie anywhere on the object's mask and get a box of one size for all
(`--click-side`). Boxes go into the decoder as they are, without noise, at the times given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cyclopts import App
from numpy.typing import NDArray

from diffinst.config import Options
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.datasets.split import ImageRecord
from diffinst.diffusion.signal import from_signal
from diffinst.inference.masks import crop_masks
from diffinst.inference.pipeline import Pipeline
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.select import Detections
from diffinst.io.atomic import write_json
from diffinst.ops.boxes import clip

app = App()
OFF = (0.1, 0.3, 0.5)


def boxes_off(
    boxes: NDArray[np.float32], off: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(n, 4) xyxy boxes moved by up to `off` of their size, sides scaled by up to 1 +- off."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2 + rng.uniform(-off, off, size.shape) * size
    half = size * (1 + rng.uniform(-off, off, size.shape)) / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def clicks(masks: NDArray[np.bool_], side: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, 4) xyxy squares around one pixel of each mask, drawn evenly."""
    result = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        k = rng.integers(max(1, len(rows)))
        x, y = (columns[k] + 0.5, rows[k] + 0.5) if len(rows) else (0.0, 0.0)
        result.append([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return np.array(result, np.float32)


def answers(
    model: DiffusionInst, image: Path, boxes: NDArray[np.float32], time: int, proposals: int
) -> NDArray[np.bool_]:
    """(n, h, w) the mask of each start, in order; `proposals` fresh boxes look on beside them."""
    given = model.encode(image)
    encoded, output, count = given.encoded, given.size, len(boxes)
    options = Options.of(model.config, kind="search", steps=1, proposals=max(1, proposals))
    pipeline = Pipeline(model.network, model.config, options)
    inside, head = encoded.sizes[0], model.network.mask_head
    ratio = torch.tensor([inside[1] / output[1], inside[0] / output[0]]).repeat(2)
    fresh = from_signal(given.runner.noise([0], options).start, encoded.scale, pipeline.diffusion)
    with torch.inference_mode():
        starts = torch.from_numpy(boxes).float() * ratio
        beside = fresh[:, :proposals]
        t = torch.full((1, count + proposals), pipeline.diffusion.timesteps - 1)
        t[:, :count] = time
        x = torch.cat([starts[None], beside], 1)
        last = model.network.denoise(encoded, x, t)[-1]
        found, logits = last.boxes[0, :count].float(), last.logits[0, :count]
        kept = Detections(
            boxes=found,
            output_boxes=clip(found / ratio, output),
            scores=logits.sigmoid().amax(1),
            labels=logits.argmax(1),
            filters=last.filters[0, :count],
            proposals=torch.arange(count),
        )
        return crop_masks(kept, encoded, 0, output, head, options.mask_threshold).dense().numpy()


def overlaps(found: NDArray[np.bool_], masks: NDArray[np.bool_]) -> list[float]:
    """IoU of each answer with its own object."""
    both = (found & masks).sum((1, 2))
    either = (found | masks).sum((1, 2))
    return [float(value) for value in both / np.maximum(either, 1)]


def objects(record: ImageRecord) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes and masks of an image's objects."""
    real = [a for a in record.annotations if not a.crowd and a.area > 0]
    boxes = np.array([a.box for a in real], np.float32).reshape(-1, 4)
    masks = [rasterize(a.segmentation, record.height, record.width) for a in real]
    return boxes, np.stack(masks) if masks else np.zeros((0, 1, 1), bool)


@app.default
def prompts(
    *,
    data: Path,
    model: str,
    out: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    time: int = 60,
    click_time: int = 200,
    click_side: float = 20.0,
    proposals: int = 0,
    seed: int = 0,
) -> None:
    """Mean mask IoU, and the fraction of starts with an IoU of at least 0.5.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file.
        split: Which annotations.
        limit: First N images only.
        time: Told to box starts.
        click_time: Told to clicks.
        click_side: Side of a click's box, in pixels of the original image.
        proposals: Boxes from noise beside the starts.
        seed: Of the starts.
    """
    loaded = DiffusionInst.from_pretrained(model)
    rows: dict[str, list[float]] = {**{f"box {off:.0%} off": [] for off in OFF}, "click": []}
    for record in load_split(data, split).records[:limit]:
        rng = np.random.default_rng([seed, record.id])
        boxes, masks = objects(record)
        if not len(boxes):
            continue
        for off in OFF:
            found = answers(loaded, record.path, boxes_off(boxes, off, rng), time, proposals)
            rows[f"box {off:.0%} off"] += overlaps(found, masks)
        found = answers(loaded, record.path, clicks(masks, click_side, rng), click_time, proposals)
        rows["click"] += overlaps(found, masks)
    summary = {
        name: {"mean_iou": float(np.mean(v)), "from_0.5": float(np.mean(np.array(v) >= 0.5))}
        for name, v in rows.items()
    }
    for name, values in summary.items():
        print(f"{name:12} {values['mean_iou']:.3f} {values['from_0.5']:.3f}")
    if out is not None:
        settings = {
            "data": data.name,
            "split": split,
            "limit": limit,
            "seed": seed,
            "time": time,
            "click_time": click_time,
            "click_side": click_side,
        }
        write_json(out, {"model": model, "proposals": proposals, **settings, "starts": summary})


if __name__ == "__main__":
    app()
