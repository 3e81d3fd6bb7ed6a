"""The files that an evaluation server takes."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffinst.datasets.split import Split
from diffinst.evaluation.metrics import COCO_MAX_DETECTIONS, LVIS_MAX_DETECTIONS
from diffinst.evaluation.outputs import write_results
from diffinst.io.atomic import atomic_path
from diffinst.results.convert import CocoResult

SCORE_DIGITS = 5
_PREFIXES = ("image_info_", "instances_")  # of annotation files


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        results: The JSON file.
        archive: The same file zipped, for the server.
        written: Results in it.
        dropped: Results beyond the benchmark's limit per image.
    """

    results: Path
    archive: Path
    written: int
    dropped: int


def write_submission(results: Iterable[CocoResult], split: Split, target: Path) -> Submission:
    """Write masks for COCO's or LVIS's server: `image_id`, `category_id`, `segmentation`, `score`.

    Masks are compressed RLE at full size, scores have five decimals. At most 100 results an image
    (LVIS: 300) are kept, the best ones.

    Args:
        results: Of all images.
        split: Where they come from.
        target: A .json or .zip file, the other one is written beside it; or a folder, which gets
            detections_SPLIT_diffinst_results.json, as COCO's server wants its files called.

    Raises:
        OSError: As in `atomic_path`.
    """
    limit = LVIS_MAX_DETECTIONS if split.federated else COCO_MAX_DETECTIONS
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    total = 0
    for result in results:
        by_image[result["image_id"]].append(result)
        total += 1
    if target.suffix.lower() not in (".json", ".zip"):
        target = target / f"detections_{_benchmark(split)}_diffinst_results.json"
    file, archive = target.with_suffix(".json"), target.with_suffix(".zip")
    written = write_results(
        file,
        (
            _entry(result)
            for found in by_image.values()
            for result in sorted(found, key=lambda r: r["score"], reverse=True)[:limit]
        ),
    )
    with (
        atomic_path(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        packed.write(file, file.name)
    return Submission(file, archive, written, total - written)


def _entry(result: CocoResult) -> dict[str, object]:
    """Without the box: the server would take the box's area for the mask's."""
    return {
        "image_id": result["image_id"],
        "category_id": result["category_id"],
        "segmentation": result["segmentation"],
        "score": round(result["score"], SCORE_DIGITS),
    }


def _benchmark(split: Split) -> str:
    """`test-dev2017` from image_info_test-dev2017.json; the split's name for other files."""
    stem = split.annotation_file.stem
    for prefix in _PREFIXES:
        if stem.startswith(prefix) and stem != prefix:
            return stem.removeprefix(prefix)
    return split.name
