"""How well a model finds the object that a person points at: drawn boxes, and clicks.

    python benchmarks/prompts.py --data DATA --model nano-nuclei --out results.json

A box is off by up to a fraction of its object's size, in place and size; a click lies anywhere on
the object's mask. Mean mask IoU of each answer with its own object, and the fraction from 0.5: all
objects of an image at once, and one at a time (of some). Then what a box brings where prediction
fails, and what prompts cost after `encode`.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from cyclopts import App
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.datasets.split import ImageRecord
from diffinst.inference.image import EncodedImage
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.results.instances import Instances

app = App()
OFF = (0.1, 0.3, 0.5)
ALONE = 10  # objects an image that are asked for one at a time
AUTOMATIC = "no prompt, 4 steps of 500"  # for each object the best of what is found
ROUNDS = 15
MANY = 100  # prompts that are timed together, on the first image with as many objects


def boxes_off(
    boxes: NDArray[np.float32], off: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(n, 4) xyxy boxes moved by up to `off` of their size, sides scaled by up to 1 +- off."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2 + rng.uniform(-off, off, size.shape) * size
    half = size * (1 + rng.uniform(-off, off, size.shape)) / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def clicks(masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, 2) x, y of one pixel of each mask, drawn evenly."""
    result = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        k = rng.integers(len(rows))
        result.append([columns[k] + 0.5, rows[k] + 0.5])
    return np.array(result, np.float32).reshape(-1, 2)


def overlaps(found: Instances, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(m, n) mask IoU of answers and objects."""
    theirs = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    mine = found.mask_crops.to_rle()
    if not mine or not theirs:
        return np.zeros((len(mine), len(theirs)))
    return np.asarray(coco_mask.iou(mine, theirs, [0] * len(theirs)), np.float64)


def objects(record: ImageRecord) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes and masks of an image's objects."""
    real = [a for a in record.annotations if not a.crowd and a.area > 0]
    boxes = np.array([a.box for a in real], np.float32).reshape(-1, 4)
    masks = [rasterize(a.segmentation, record.height, record.width) for a in real]
    kept = [i for i, mask in enumerate(masks) if mask.any()]
    stacked = np.stack([masks[i] for i in kept]) if kept else np.zeros((0, 1, 1), bool)
    return boxes[kept], stacked


def doubles(found: Instances, masks: NDArray[np.bool_]) -> int:
    """Answers whose object another answer has found, too (mask IoU 0.5)."""
    overlap = overlaps(found, masks)
    best = overlap.argmax(1)[overlap.max(1, initial=0.0) >= 0.5]
    return len(best) - len(set(best.tolist()))


def summary(values: list[float]) -> dict[str, float]:
    """Mean, the fraction from 0.5, and how many."""
    array = np.array(values)
    return {
        "mean_iou": round(float(array.mean()), 4),
        "from_0.5": round(float((array >= 0.5).mean()), 4),
        "objects": len(values),
    }


def asked_for(image: EncodedImage, given: NDArray[np.float32]) -> Instances:
    """The answers to (n, 4) boxes or (n, 2) clicks."""
    return image.prompt(boxes=given) if given.shape[1] == 4 else image.prompt(points=given)


def seconds(image: EncodedImage, boxes: NDArray[np.float32]) -> dict[str, float]:
    """Median time of prompting with boxes, the image encoded: by the wall, and of the processor."""
    image.prompt(boxes=boxes)
    wall, processor = [], []
    for _ in range(ROUNDS):
        before = time.perf_counter(), time.process_time()
        image.prompt(boxes=boxes)
        wall.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
    return {"wall": round(median(wall), 4), "processor": round(median(processor), 4)}


@app.default
def prompts(
    *,
    data: Path,
    model: str,
    out: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
) -> None:
    """See the top of the file.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file.
        split: Which annotations.
        limit: First N images only.
        seed: Of what is drawn and clicked.
    """
    loaded = DiffusionInst.from_pretrained(model)
    rows: dict[str, list[float]] = {}
    ends_together, asked = {"box 30% off": 0, "click": 0}, 0
    recovered: dict[str, list[float]] = {"box 10% off": [], "box 30% off": []}
    timed: dict[str, dict[str, float]] = {}
    for record in load_split(data, split).records[:limit]:
        rng = np.random.default_rng([seed, record.id])
        boxes, masks = objects(record)
        if not len(boxes):
            continue
        image = loaded.encode(record.path)
        drawn = {f"box {off:.0%} off": boxes_off(boxes, off, rng) for off in OFF}
        points = clicks(masks, rng)
        asked += len(boxes)
        for name, given in (drawn | {"click": points}).items():
            found = asked_for(image, given)
            own = overlaps(found, masks).diagonal()
            rows.setdefault(name, []).extend(own.tolist())
            if name in ends_together:
                ends_together[name] += doubles(found, masks)
            if name in ("box 30% off", "click"):
                some = range(min(ALONE, len(boxes)))
                for i in some:
                    alone = overlaps(asked_for(image, given[i : i + 1]), masks[i : i + 1])
                    rows.setdefault(f"{name}, one at a time", []).append(float(alone[0, 0]))
                rows.setdefault(f"{name}, the same objects at once", []).extend(own[some].tolist())
        automatic = overlaps(image.predict(steps=4, proposals=500), masks).max(0, initial=0.0)
        rows.setdefault(AUTOMATIC, []).extend(automatic.tolist())
        missed = automatic < 0.5
        for name in recovered:
            own = overlaps(image.prompt(boxes=drawn[name]), masks).diagonal()
            recovered[name].extend(own[missed].tolist())
        if not timed and len(boxes) >= MANY:
            for count in (1, MANY):
                timed[str(count)] = seconds(image, drawn["box 30% off"][:count])
    table = {name: summary(values) for name, values in rows.items()}
    back = {f"{name}, of missed": summary(values) for name, values in recovered.items() if values}
    for name, line in (table | back).items():
        print(f"{name:40} {line['mean_iou']:.3f} {line['from_0.5']:.3f} {line['objects']:6}")
    times = timed or f"not measured, no image has {MANY} objects"
    print(f"answers on one object  {ends_together} of {asked}; seconds after encode {times}")
    if out is not None:
        settings = {"data": data.name, "split": split, "limit": limit, "seed": seed}
        measured = {
            "prompts": table,
            "missed_by_prediction": back,
            "answers_on_one_object": ends_together,
            "objects": asked,
            "seconds_after_encode": timed,
            "threads": torch.get_num_threads(),
        }
        write_json(out, {"model": model, **settings, **measured})


if __name__ == "__main__":
    app()
