"""What does bf16 cost in accuracy? Mask AP against float32 on the same images and noise.

    python benchmarks/precision.py --data DATA  # a COCO-format folder like shared nuclei

Several seeds of the noise, as AP differs between seeds by about as much as between precisions.
"Same boxes": of float32's instances with a score from 0.5, those whose box is found again with an
IoU of at least 0.95.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App

from diffinst.acceleration.optimize import Precision
from diffinst.datasets.load import load_split
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.export.parity import CONFIDENT, NEAR, SAME_IOU
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_json
from diffinst.kernels.machine import machine
from diffinst.ops.boxes import iou

app = App()
RESULTS = Path(__file__).parent / "results"
WAYS: tuple[Precision, ...] = ("fp32", "bf16")
AIM = 0.2  # points of AP


@app.default
def precision(
    *,
    data: Path,
    model: str = "nano-nuclei",
    steps: tuple[int, ...] = (1, 4),
    seeds: tuple[int, ...] = (0, 1, 2),
    limit: int | None = None,
    results: Path = RESULTS,
) -> None:
    """Measure, print the table, write `precision.json` and `.md`.

    Args:
        data: COCO-format folder; val is scored.
        model: Name or folder of the weights.
        steps: Denoising steps.
        seeds: Of the noise.
        limit: Score on at most so many images.
        results: Folder of the files.
    """
    loaded, split = DiffusionInst.from_pretrained(model), load_split(data, "val")
    records = split.records[:limit]
    exact, rounded = (loaded.optimize(way) for way in WAYS)
    rows: list[dict[str, Any]] = []
    for count in steps:
        for seed in seeds:
            row = compare(exact, rounded, split, records, count, seed)
            rows.append({"steps": count, "seed": seed, **row})
            print(rows[-1], flush=True)
    content = {"machine": machine("cpu"), "model": model, "images": len(records)}
    write_json(results / "precision.json", {**content, "rows": rows})
    text = table(rows)
    with atomic_path(results / "precision.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


def compare(
    exact: DiffusionInst,
    rounded: DiffusionInst,
    split: Split,
    records: Sequence[ImageRecord],
    steps: int,
    seed: int,
) -> dict[str, float]:
    """AP of both, the confident instances of the exact one, and how many boxes stay the same."""
    limit = exact.config.postprocess.max_detections
    predictions: dict[Precision, list[Prediction]] = {way: [] for way in WAYS}
    confident = same = 0
    for record in records:
        found = [
            model.predict(record.path, steps=steps, seed=seed, threshold=0.0)
            for model in (exact, rounded)
        ]
        for way, instances in zip(WAYS, found, strict=True):
            results = instances.to_coco(record.id, split.category_ids, boxes="predicted")
            predictions[way].append(Prediction(record.id, 0.0, results))
        sure = found[0].boxes[found[0].scores >= CONFIDENT]
        near = found[1].boxes[found[1].scores >= CONFIDENT - NEAR]
        if len(sure) and len(near):
            same += int((iou(sure[:, None], near[None]).amax(1) >= SAME_IOU).sum())
        confident += len(sure)
    points: dict[str, float] = {way: score(split, predictions[way], limit).mask.ap for way in WAYS}
    return {**points, "confident": confident, "same": same}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: by steps, means over seeds, the range of differences, all boxes together."""
    names = "| steps | AP fp32 | AP bf16 | points of AP | range | aim | same boxes | aim |"
    lines = [names, "|" + "---|" * 8]
    for steps in sorted({row["steps"] for row in rows}):
        mine = [row for row in rows if row["steps"] == steps]
        means = [f"{statistics.mean(row[way] for row in mine):.4f}" for way in WAYS]
        lost = [100 * (row["bf16"] - row["fp32"]) for row in mine]
        span = f"{min(lost):.2f} to {max(lost):.2f}"
        cells = [str(steps), *means, f"{statistics.mean(lost):.2f}", span, f">= -{AIM}"]
        confident, same = (sum(row[key] for row in mine) for key in ("confident", "same"))
        cells += [f"{same} of {confident} ({same / max(confident, 1):.1%})", ">= 99%"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()
