"""The numbers of a model card: AP over steps and proposals from one set of weights, with times.

    python benchmarks/card.py --data DATA --model nano-nuclei --out results.json

Each row is what `diffinst eval --data DATA --model MODEL --steps S --proposals P` prints; times
include reading, preprocessing, post-processing and RLE-ready masks, one image at a time.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.evaluation.evaluate import evaluate
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json

app = App()
COLUMNS = ("mask/AP", "mask/AP50", "mask/AP75", "box/AP", "seconds_per_image")


@app.default
def card(
    *,
    data: Path,
    model: str,
    out: Path,
    split: str = "val",
    steps: tuple[int, ...] = (1, 2, 4, 8),
    proposals: tuple[int, ...] = (100, 300, 500),
    seeds: tuple[int, ...] = (0,),
) -> None:
    """Evaluate every combination; print a table and write all metrics.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file.
        split: Which annotations.
        steps: Denoising steps.
        proposals: Boxes to start from.
        seeds: Of the starting noise; each is a row of its own.
    """
    loaded = DiffusionInst.from_pretrained(model)
    annotated = load_split(data, split)
    rows: list[dict[str, Any]] = []
    print("steps proposals seed " + " ".join(f"{c:>10}" for c in COLUMNS))
    loaded.predict(annotated.records[0].path)  # warm-up
    for s in steps:
        for p in proposals:
            for seed in seeds:
                report = evaluate(loaded, annotated, steps=s, proposals=p, seed=seed)
                row = {"steps": s, "proposals": p, "seed": seed, **report.as_dict()}
                rows.append(row)
                values = " ".join(f"{row[c]:>10.4f}" for c in COLUMNS)
                print(f"{s:>5} {p:>9} {seed:>4} {values}", flush=True)
                write_json(out, {"machine": machine(), "model": model, "rows": rows})


def machine() -> dict[str, object]:
    """What the times were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


if __name__ == "__main__":
    app()
