"""What does an evaluation leave in its folder?

metrics.json          the numbers, and the settings they belong to
per_class.csv         AP, AP50 and number of objects, best first
results.json          COCO results of all images
worst.json, worst/    the worst images
precision_recall.png  the curves
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffinst.datasets.split import Split
from diffinst.evaluation.accumulate import IOU_50
from diffinst.evaluation.average_precision import Metrics
from diffinst.evaluation.curves import draw_precision_recall
from diffinst.evaluation.evaluator import Report
from diffinst.evaluation.prediction import Request
from diffinst.evaluation.results import write_results
from diffinst.evaluation.worst import write_worst
from diffinst.io.atomic import write_json, write_text


@dataclass(frozen=True)
class ClassRow:
    """One class; NaN where it has no objects.

    Attributes:
        name: Its name.
        ap: Mask AP.
        ap50: Mask AP at IoU 0.5.
        box_ap: Box AP.
        box_ap50: Box AP at IoU 0.5.
        objects: Annotated on the images evaluated, crowds left out.
    """

    name: str
    ap: float
    ap50: float
    box_ap: float
    box_ap50: float
    objects: int


def class_rows(report: Report) -> list[ClassRow]:
    """All classes, the best mask AP first, those without objects last."""
    box_ap50 = _ap50(report.box)
    rows = [
        ClassRow(name, ap, ap50, report.box.per_class[name], box_ap50[name], report.objects[name])
        for (name, ap), ap50 in zip(
            report.mask.per_class.items(), _ap50(report.mask).values(), strict=True
        )
    ]
    return sorted(rows, key=lambda row: (math.isnan(row.ap), -row.ap, row.name))


def write_outputs(
    report: Report,
    split: Split,
    asked: Request,
    out: Path,
    *,
    title: str,
    worst: int,
    threshold: float,
) -> list[str]:
    """Write the files listed above in that order; only results.json where nothing is annotated.

    Args:
        report: What was found.
        split: Where.
        asked: How; metrics.json names it.
        out: The folder.
        title: Of the curves.
        worst: How many of the worst images are drawn.
        threshold: Lowest score of a prediction that counts for them.

    Returns:
        What could not be written and why: curves, without matplotlib.
    """
    if not report.annotated:
        write_results(out / "results.json", report.results)
        return []
    settings = {
        "steps": asked.steps,
        "proposals": asked.proposals,
        "max_detections": asked.max_detections,
        "seed": asked.seed,
    }
    write_json(out / "metrics.json", {**settings, **report.as_dict()})
    fields = ("class", "AP", "AP50", "box_AP", "box_AP50", "objects")
    rows = (
        (row.name, row.ap, row.ap50, row.box_ap, row.box_ap50, row.objects)
        for row in class_rows(report)
    )
    write_csv(out / "per_class.csv", fields, rows)
    write_results(out / "results.json", report.results)
    if worst:
        write_worst(split, report.results, report.image_ids, out, count=worst, threshold=threshold)
    try:
        draw_precision_recall(report.mask, out / "precision_recall.png", title=title)
    except ImportError as error:
        return [f"precision_recall.png is missing: {error}"]
    return []


def write_csv(
    path: Path, fields: Sequence[str], rows: Iterable[Sequence[str | float | None]]
) -> None:
    """Write a table whole or not at all; what is undefined stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow(["" if v is None or v != v else v for v in row])  # NaN is not itself
    write_text(path, text.getvalue())


def _ap50(metrics: Metrics) -> Mapping[str, float]:
    means: list[float] = np.mean(metrics.precision[IOU_50], axis=0).tolist()  # NaN stays NaN
    return dict(zip(metrics.per_class, means, strict=True))
