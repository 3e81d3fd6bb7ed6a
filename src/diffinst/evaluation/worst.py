"""The images on which a model is worst, and what it gets wrong there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from PIL import Image

from diffinst.config import Reading
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.matching import ImageMatch, match
from diffinst.evaluation.prediction import as_instances
from diffinst.evaluation.report import Report
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import ImageReadError, read_image
from diffinst.results.crops import CompressedRLE, CroppedMasks
from diffinst.results.instances import CocoResult
from diffinst.results.render.marks import Color, draw_masks
from diffinst.results.render.sheet import contact_sheet

USUAL_THRESHOLD = 0.3
"""Score from which on predictions count for a model that itself keeps all (threshold 0)."""

# Told apart by people who do not see red and green as different.
RIGHT: Color = (41, 182, 255)
FALSE: Color = (255, 77, 66)
MISSED: Color = (255, 200, 31)
IGNORED: Color = (150, 156, 163)

_IOU_50 = 0
_MIN_TILE, _MAX_TILE = 480, 960  # pixels


@dataclass(frozen=True)
class ImageScore:
    """How good the masks on one image are.

    Attributes:
        image_id: As in the annotations.
        file: The image, in the split's folder.
        f1: Mean over the IoU thresholds 0.50, 0.55, ..., 0.95 of the masks' F1.
        objects: Annotated, crowds omitted.
        found: Objects found at IoU 0.5.
        missed: The others.
        false_positives: Predictions that found nothing at IoU 0.5.
    """

    image_id: int
    file: str
    f1: float
    objects: int
    found: int
    missed: int
    false_positives: int


def image_scores(
    split: Split, results: Iterable[CocoResult], image_ids: Iterable[int], threshold: float
) -> list[ImageScore]:
    """Score images one by one, the worst first.

    Args:
        split: Annotated images.
        results: Predictions in the split's categories.
        image_ids: The images.
        threshold: Lowest score of a prediction that counts.
    """
    by_image, kept = _confident(results, threshold), set(image_ids)
    scores = []
    for record in split.records:
        if record.id in kept:
            matched = match(record, by_image[record.id], split)
            scores.append(_score(record, matched, split))
    return sorted(scores, key=lambda s: (s.f1, -s.missed - s.false_positives, s.image_id))


def write_worst(
    report: Report,
    split: Split,
    out: Path,
    *,
    count: int,
    threshold: float,
    reading: Reading | None = None,
) -> None:
    """Draw the worst images, prediction beside annotation, and list them, the worst first.

    Earlier images of the folder are replaced.

    Args:
        report: Predictions.
        split: Annotated images.
        out: Gets worst.json and worst/01_NAME.png, worst/02_NAME.png, ...
        count: How many.
        threshold: Lowest score of a prediction that counts.
        reading: How the images were read; None: the defaults.
    """
    chosen = image_scores(split, report.results, report.image_ids, threshold)[:count]
    by_image = _confident(report.results, threshold)
    ids = {score.image_id for score in chosen}
    records = {record.id: record for record in split.records if record.id in ids}
    for old in (out / "worst").glob("[0-9]*_*.png"):
        old.unlink()
    entries = []
    for rank, score in enumerate(chosen, start=1):
        record = records[score.image_id]
        name = f"{rank:02d}_{record.path.stem}.png"
        entry: dict[str, object] = {**asdict(score), "image": f"worst/{name}"}
        try:
            drawn = draw(record, by_image[record.id], split, reading)
        except ImageReadError as error:  # predicted earlier, gone by now
            entry["image"] = f"not drawn: {error}"
        else:
            with atomic_path(out / "worst" / name) as temporary:
                drawn.save(temporary, format="PNG")
        entries.append(entry)
    write_json(out / "worst.json", {"score_threshold": threshold, "images": entries})


def draw(
    record: ImageRecord,
    results: Sequence[CocoResult],
    split: Split,
    reading: Reading | None = None,
) -> Image.Image:
    """One image twice: what was predicted, and what is annotated.

    Blue is right, red a false positive, yellow a missed object (each at IoU 0.5), grey what does
    not count: crowds, and predictions in them or of classes not looked for.

    Raises:
        ImageReadError: The image cannot be read.
    """
    image = read_image(record.path, reading)
    matched = match(record, results, split)
    score = _score(record, matched, split)
    tile = min(max(record.width, _MIN_TILE), _MAX_TILE)
    line = max(1.0, 1.5 * record.width / tile)
    found = _pick(RIGHT, matched.hit[_IOU_50], FALSE, matched.false[_IOU_50])
    truth = _pick(RIGHT, matched.found[_IOU_50], MISSED, matched.missed[_IOU_50])
    predicted = draw_masks(image, _crops(results, record, split), found, 0.4, line)
    annotated = draw_masks(image, _crops(_truth(record, split), record, split), truth, 0.4, line)
    wrong = f"{score.false_positives} false positive{'s' if score.false_positives != 1 else ''}"
    objects = f"{score.objects} object{'s' if score.objects != 1 else ''}"
    hits = int(matched.hit[_IOU_50].sum())
    captions = (
        f"{record.path.name}: F1 {score.f1:.2f}\nprediction: {hits} right (blue), {wrong} (red)",
        f"{objects}\nannotation: {score.found} found (blue), {score.missed} missed (yellow)",
    )
    pairs = list(zip((predicted, annotated), captions, strict=True))
    return contact_sheet(pairs, columns=2, tile_width=tile)


def _confident(results: Iterable[CocoResult], threshold: float) -> dict[int, list[CocoResult]]:
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    for result in results:
        if result["score"] >= threshold:
            by_image[result["image_id"]].append(result)
    return by_image


def _score(record: ImageRecord, matched: ImageMatch, split: Split) -> ImageScore:
    inside = record.path.is_relative_to(split.image_dir)
    file = record.path.relative_to(split.image_dir).as_posix() if inside else record.path.name
    missed, found = int(matched.missed[_IOU_50].sum()), int(matched.found[_IOU_50].sum())
    wrong = int(matched.false[_IOU_50].sum())
    return ImageScore(record.id, file, matched.f1, missed + found, found, missed, wrong)


def _pick(
    first: Color, is_first: Iterable[bool], second: Color, is_second: Iterable[bool]
) -> list[Color]:
    pairs = zip(is_first, is_second, strict=True)
    return [first if a else second if b else IGNORED for a, b in pairs]


def _truth(record: ImageRecord, split: Split) -> list[CocoResult]:
    """The annotations as results."""
    results: list[CocoResult] = []
    for a in record.annotations:
        x0, y0, x1, y1 = a.box
        results.append(
            {
                "image_id": record.id,
                "category_id": split.category_ids[a.label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": 1.0,
                "segmentation": cast("CompressedRLE", a.segmentation),  # of any form, to be drawn
            }
        )
    return results


def _crops(results: Sequence[CocoResult], record: ImageRecord, split: Split) -> CroppedMasks:
    return as_instances(results, record, split).mask_crops
