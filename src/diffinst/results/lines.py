"""Instances as lines of JSON, for images of any size: masks as run lengths in their windows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from diffinst.io.atomic import atomic_path
from diffinst.results.instances import Instances


def write_lines(path: Path, parts: Iterable[Instances]) -> int:
    """Write one instance a line, part after part; returns how many.

    A line holds `id` (from 1, as in the label image), `label`, `class`, `score`, `box` (x0, y0,
    x1, y1 as predicted), `window` (y0, x0, height, width) and `counts`: the mask inside its window
    as COCO's compressed run lengths. `pycocotools.mask.decode({"size": window[2:], "counts":
    counts})` gives it back. Run lengths over the whole image would be as long as the image is
    large.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for part in parts:
            boxes, scores, labels = part.boxes.tolist(), part.scores.tolist(), part.labels.tolist()
            for i, ((y, x), mask) in enumerate(part.mask_crops.placed()):
                count += 1
                rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                line = {
                    "id": count,
                    "label": labels[i],
                    "class": part.class_names[labels[i]],
                    "score": round(scores[i], 6),
                    "box": [round(edge, 3) for edge in boxes[i]],
                    "window": [y, x, *mask.shape],
                    "counts": rle["counts"].decode("ascii"),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return count
