"""The images on which a model is worst, and what it gets wrong there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from diffinst.config import Reading
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.comparison import side_by_side
from diffinst.evaluation.matching import IOU_50, ImageMatch, match
from diffinst.evaluation.report import Report
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import ImageReadError
from diffinst.results.convert import CocoResult
from diffinst.results.render.sheet import contact_sheet

_MIN_TILE, _MAX_TILE = 480, 960  # pixels


@dataclass(frozen=True)
class ImageScore:
    """How good the masks on one image are.

    Attributes:
        image_id: As in the annotations.
        file: The image, in the split's folder.
        f1: Mean over the IoU thresholds 0.50, 0.55, ..., 0.95 of the masks' F1.
        f1_50: F1 at IoU 0.5, which the counts below belong to.
        objects: Annotated, crowds omitted.
        found: Objects found at IoU 0.5.
        missed: The others.
        false_positives: Predictions that found nothing at IoU 0.5.
    """

    image_id: int
    file: str
    f1: float
    f1_50: float
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
    """One image twice, as `side_by_side` draws it.

    Raises:
        ImageReadError: The image cannot be read.
    """
    tile = min(max(record.width, _MIN_TILE), _MAX_TILE)
    tiles = side_by_side(record, results, split, tile, reading)
    return contact_sheet(tiles, columns=2, tile_width=tile)


def _confident(results: Iterable[CocoResult], threshold: float) -> dict[int, list[CocoResult]]:
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    for result in results:
        if result["score"] >= threshold:
            by_image[result["image_id"]].append(result)
    return by_image


def _score(record: ImageRecord, matched: ImageMatch, split: Split) -> ImageScore:
    inside = record.path.is_relative_to(split.image_dir)
    file = record.path.relative_to(split.image_dir).as_posix() if inside else record.path.name
    missed, found = int(matched.missed[IOU_50].sum()), int(matched.found[IOU_50].sum())
    wrong = int(matched.false[IOU_50].sum())
    f1_50 = float(matched.f1_at[IOU_50])
    return ImageScore(record.id, file, matched.f1, f1_50, missed + found, found, missed, wrong)
