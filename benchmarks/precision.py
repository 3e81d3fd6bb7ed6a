"""What does bf16 cost in accuracy? Mask AP against float32 on the same pictures and noise.

    python benchmarks/precision.py --data DATA  # a COCO-format folder like shared nuclei

Several seeds of the noise, as AP differs between seeds by about as much as between precisions.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from cyclopts import App

from diffinst.data.load import load_split
from diffinst.evaluation.evaluator import evaluate_records
from diffinst.evaluation.prediction import Options, request
from diffinst.inference.benchmark import machine
from diffinst.inference.optimize import Precision
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_json

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
        limit: Score on at most so many pictures.
        results: Folder of the files.
    """
    loaded, split = DiffusionInst.from_pretrained(model), load_split(data, "val")
    records = split.records[:limit]
    rows: list[dict[str, Any]] = []
    for count in steps:
        for seed in seeds:
            asked = request(loaded.config, split, Options(steps=count, seed=seed))
            row: dict[str, Any] = {"steps": count, "seed": seed}
            for way in WAYS:
                found = evaluate_records(loaded.optimize(way), split, records, asked, None)
                row[way] = found.mask.as_dict("mask")["mask/AP"]
            print(row, flush=True)
            rows.append(row)
    content = {"machine": machine(torch.device("cpu")), "model": model, "pictures": len(records)}
    write_json(results / "precision.json", {**content, "rows": rows})
    text = table(rows)
    with atomic_path(results / "precision.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: points of AP by steps, means over seeds and the range of differences."""
    lines = ["| steps | AP fp32 | AP bf16 | difference in points | range | aim |", "|" + "---|" * 6]
    for steps in sorted({row["steps"] for row in rows}):
        mine = [row for row in rows if row["steps"] == steps]
        means = [f"{statistics.mean(row[way] for row in mine):.4f}" for way in WAYS]
        lost = [100 * (row["bf16"] - row["fp32"]) for row in mine]
        span = f"{min(lost):.2f} to {max(lost):.2f}"
        cells = [str(steps), *means, f"{statistics.mean(lost):.2f}", span, f">= -{AIM}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()
