"""The files of an evaluation.

metrics.json          the numbers, and the settings they belong to
per_class.csv         AP, AP50 and number of objects, best first
results.json          COCO results of all images: the masks
box_results.json      the same results: the boxes, as predicted
worst.json, worst/    the worst images
precision_recall.png  the curves
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from diffinst.config import Reading
from diffinst.datasets.split import Split
from diffinst.evaluation.curves import draw_precision_recall
from diffinst.evaluation.metrics import COCO_MAX_DETECTIONS
from diffinst.evaluation.prediction import Request
from diffinst.evaluation.report import Report
from diffinst.evaluation.worst import write_worst
from diffinst.io.atomic import atomic_path, write_json, write_text


def write_outputs(
    report: Report,
    split: Split,
    asked: Request,
    out: Path,
    *,
    title: str,
    worst: int,
    threshold: float,
    reading: Reading | None = None,
) -> list[str]:
    """Write the files listed above in that order; only results where nothing is annotated.

    COCO tools take an object's size, small to large, from `bbox` where they find one, even when
    they compare masks. So masks and boxes are files of their own, as on COCO's server.

    Args:
        report: What was found.
        split: Where.
        asked: How; metrics.json names it.
        out: The folder.
        title: Of the curves.
        worst: How many of the worst images are drawn.
        threshold: Lowest score of a prediction that counts for them.
        reading: How the images were read; None: the defaults.

    Returns:
        What to know: curves that could not be written, without matplotlib; how other tools count.
    """
    if not report.annotated:
        _write_both(report, out)
        return []
    names = ("steps", "proposals", "max_detections", "seed", "noises")
    settings = {name: getattr(asked, name) for name in names}
    write_json(out / "metrics.json", {**settings, **report.as_dict()})
    fields = ("class", "AP", "AP50", "box_AP", "box_AP50", "objects")
    write_csv(out / "per_class.csv", fields, report.class_rows())
    _write_both(report, out)
    if worst:
        write_worst(report, split, out, count=worst, threshold=threshold, reading=reading)
    notes = []
    try:
        draw_precision_recall(report.mask, out / "precision_recall.png", title=title)
    except ImportError as error:
        notes.append(f"precision_recall.png is missing: {error}")
    if asked.max_detections > COCO_MAX_DETECTIONS and not split.federated:
        notes.append(
            f"{asked.max_detections} results an image are counted here; pycocotools and its like "
            f"count {COCO_MAX_DETECTIONS} unless told otherwise and so may report less on "
            "results.json (docs/other-tools.md); for the same numbers evaluate with "
            f"--max-detections {COCO_MAX_DETECTIONS}"
        )
    return notes


def _write_both(report: Report, out: Path) -> None:
    for name, other in (("results.json", "bbox"), ("box_results.json", "segmentation")):
        entries = ({k: v for k, v in r.items() if k != other} for r in report.results)
        write_results(out / name, entries)


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


def write_results(path: Path, entries: Iterable[Mapping[str, object]]) -> int:
    """Write a JSON list one entry a line, completely or not at all, without a second copy of it.

    Returns:
        How many entries there were.

    Raises:
        OSError: As in `atomic_path`.
        ValueError: An entry holds NaN or an infinity.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as stream:
        stream.write("[")
        for entry in entries:
            stream.write(",\n" if count else "\n")
            # Not `json.dump`: that writes token by token, which takes several times as long.
            stream.write(json.dumps(entry, separators=(",", ":"), allow_nan=False))
            count += 1
        stream.write("\n]\n")
    return count
