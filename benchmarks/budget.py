"""Do predictions take the time they are given, and is it well spent?

    python benchmarks/budget.py --data DATA --model nano-nuclei --out results.json

Every image is predicted with each budget and with each fixed setting, in turns, so that what else
runs on the machine hits all alike. Times include reading, post-processing and masks of up to 500
instances, not their run-length encoding. With --clock cpu time is the processor time of this
process: what an idle machine would show with one thread, on a machine that is not idle.
Forty images take five minutes on two idle cores.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Literal

import torch
from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.evaluation.curve import on_front
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.inference.costs import clock_of
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine

app = App()
WITHIN = 0.15  # of the time asked for


@app.default
def budget(
    *,
    data: Path,
    model: str,
    out: Path,
    split: str = "val",
    seconds: tuple[float, ...] = (0.3, 0.4, 0.55, 0.75, 1.0),
    fixed: tuple[str, ...] = ("1x100", "1x300", "1x500", "1x1000", "1x2000", "4x300", "4x500"),
    limit: int = 40,
    clock: Literal["wall", "cpu"] = "wall",
) -> None:
    """Measure, print a table, write JSON.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file.
        split: Which annotations.
        seconds: Budgets.
        fixed: Settings to compare with, STEPSxPROPOSALS.
        limit: Images, the first ones.
        clock: What tells the time.
    """
    loaded = DiffusionInst.from_pretrained(model)
    now = time.process_time if clock == "cpu" else clock_of(loaded.device)
    loaded._runner().budget.clock = now
    annotated = load_split(data, split)
    records = annotated.records[:limit]
    asked: dict[str, dict[str, Any]] = {f"{s:g} s": {"seconds": s} for s in seconds}
    for pair in fixed:
        steps, proposals = map(int, pair.split("x"))
        asked[pair] = {"steps": steps, "proposals": proposals}
    for options in asked.values():  # measures the machine, and warms up
        loaded.predict(records[0].path, threshold=0.0, max_detections=500, **options)
    found: dict[str, list[Prediction]] = {name: [] for name in asked}
    ran: dict[str, list[str]] = {name: [] for name in asked}
    late: dict[str, set[int]] = {name: set() for name in asked}
    for i, record in enumerate(records):
        for name, options in asked.items():
            begin = now()
            result = loaded.predict(record.path, threshold=0.0, max_detections=500, **options)
            took = now() - begin
            assert result.meta is not None
            measured = "measured" in result.meta.note  # another size: not part of the time
            took = (result.meta.seconds or took) if measured else took
            ran[name].append(f"{result.meta.steps}x{result.meta.proposals}")
            if "does not fit" in result.meta.note:
                late[name].add(record.id)
            entries = result.to_coco(record.id, annotated.category_ids, boxes="predicted")
            found[name].append(Prediction(record.id, took, entries))
        print(f"{i + 1} of {len(records)} images", flush=True)
        if i + 1 in (5, 10, 20, len(records)):  # what is there is kept
            rows = [row_of(n, found[n], ran[n], asked[n], annotated) for n in asked]
            compare(rows, {n: o["seconds"] for n, o in asked.items() if "seconds" in o})
            for row in rows:
                if "within_15_percent" in row:
                    row["fitting"] = fitting(row["name"], found, late[row["name"]], annotated)
            about = {"machine": machine(loaded.device), "clock": clock, "model": model}
            write_json(out, {**about, "data": data.name, "split": split, "rows": rows})
    for row in rows:
        print(" ".join(f"{key} {value}" for key, value in row.items() if key != "seconds"))


def row_of(
    name: str,
    predictions: list[Prediction],
    ran: list[str],
    asked: dict[str, Any],
    annotated: Any,
) -> dict[str, Any]:
    """One budget or setting over all images."""
    seconds = [one.seconds for one in predictions]
    ap = score(annotated, predictions, 500).mask.ap
    row: dict[str, Any] = {"name": name, "images": len(seconds), "mask/AP": round(ap, 4)}
    row["seconds_per_image"] = round(statistics.fmean(seconds), 4)
    if "seconds" in asked:
        off = sorted(s / asked["seconds"] - 1 for s in seconds)
        row["within_15_percent"] = round(sum(abs(o) <= WITHIN for o in off) / len(off), 3)
        row["off_median"], row["off_most"] = round(statistics.median(off), 3), round(off[-1], 3)
        row["off_least"] = round(off[0], 3)
        row["ran"] = ran
    row["seconds"] = [round(s, 4) for s in seconds]
    return row


def fitting(
    name: str, found: dict[str, list[Prediction]], late: set[int], annotated: Any
) -> dict[str, Any]:
    """AP and mean seconds of a budget and of the fixed settings, where the budget fits a step."""
    values: dict[str, Any] = {"images": len(found[name]) - len(late)}
    for other, predictions in found.items():
        some = [one for one in predictions if one.image_id not in late]
        if some and (other == name or "x" in other):
            seconds = statistics.fmean(one.seconds for one in some)
            ap = score(annotated, some, 500).mask.ap
            values[other] = [round(ap, 4), round(seconds, 4)]
    asked = float(name.split()[0])
    off = [one.seconds / asked - 1 for one in found[name] if one.image_id not in late]
    values["within_15_percent"] = round(sum(abs(o) <= WITHIN for o in off) / max(1, len(off)), 3)
    return values


def compare(rows: list[dict[str, Any]], asked: dict[str, float]) -> None:
    """Beside each budget, the best fixed setting: in time as often, or of the same mean cost.

    A fixed setting takes longer on large images, where most objects are, so one of the same mean
    cost is late there. `best_timely` is in time on nine of ten images; `best_fixed` took no longer
    in the mean, `line_AP` lies on the line to the next one.
    """
    fixed = [row for row in rows if "within_15_percent" not in row]
    fixed.sort(key=lambda row: row["seconds_per_image"])
    front = [row for row, on in zip(fixed, on_front(fixed), strict=True) if on]
    for row in rows:
        if "within_15_percent" not in row:
            continue
        due = (1 + WITHIN) * asked[row["name"]]
        timely = [f for f in fixed if statistics.quantiles(f["seconds"], n=10)[-1] <= due]
        best = max(timely, key=lambda f: f["mask/AP"], default=None)
        row["best_timely"] = best["name"] if best else None
        row["best_timely_AP"] = best["mask/AP"] if best else None
        seconds = row["seconds_per_image"]
        before = [f for f in front if f["seconds_per_image"] <= seconds]
        after = [f for f in front if f["seconds_per_image"] > seconds]
        row["best_fixed"] = before[-1]["name"] if before else None
        row["best_fixed_AP"] = before[-1]["mask/AP"] if before else None
        if before and after:
            a, b = before[-1], after[0]
            part = (seconds - a["seconds_per_image"]) / (
                b["seconds_per_image"] - a["seconds_per_image"]
            )
            row["line_AP"] = round(a["mask/AP"] + part * (b["mask/AP"] - a["mask/AP"]), 4)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    app()
