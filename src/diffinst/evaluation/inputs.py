"""Checks ground truth and results, and copies what the evaluator needs of them."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

IouType = Literal["segm", "bbox"]
Record = Mapping[str, object]
Detection = dict[str, object]
Truth = dict[str, list[dict[str, object]]]  # "images", "annotations", "categories"
Check = Callable[[object, str, str], object]
"""Takes a value, its key and its place, such as `results[3]`; returns what the evaluator needs."""

SHAPE_KEYS: dict[IouType, str] = {"segm": "segmentation", "bbox": "bbox"}
_MAX_IDS_NAMED = 10  # in an error


def read_ground_truth(
    source: Path | Record, iou_type: IouType, *, federated: bool = False
) -> Truth:
    """Copy what the evaluator needs, which writes into what it is given.

    Args:
        source: A COCO or LVIS annotation file or its content.
        iou_type: Masks or boxes.
        federated: Take along `neg_category_ids`, `not_exhaustive_category_ids` of LVIS's images.

    Raises:
        FileNotFoundError: `source` is a path at which there is no file.
        ValueError: A key is missing or a value wrong; names the place.
    """
    if isinstance(source, Mapping):
        content, name = source, "ground truth"
    else:
        content, name = cast("Record", json.loads(source.read_text(encoding="utf-8"))), source.name
    images, annotations, categories = _take(
        content, name, dict.fromkeys(("images", "annotations", "categories"), _anything)
    ).values()
    shape_key = SHAPE_KEYS[iou_type]
    size = ("height", "width") if iou_type == "segm" else ()
    lists = ("neg_category_ids", "not_exhaustive_category_ids") if federated else ()
    of_image = {**dict.fromkeys(("id", *size), _integer), **dict.fromkeys(lists, _listed)}
    ids = dict.fromkeys(("image_id", "category_id"), _integer)
    of_object: dict[str, Check] = {**ids, "area": _number, shape_key: _anything}
    truth: Truth = {
        "images": [
            _take(record, where, of_image) for where, record in _places(images, f"{name}: images")
        ],
        "annotations": [  # ids not the file's: the evaluator takes id 0 for "not matched"
            {"id": i, "iscrowd": int(bool(record.get("iscrowd", 0))), **taken}
            for i, (where, record) in enumerate(_places(annotations, f"{name}: annotations"), 1)
            for taken in (_take(record, where, of_object),)
        ],
        "categories": [],
    }
    names: set[str] = set()
    for where, record in _places(categories, f"{name}: categories"):
        category = _take(record, where, {"id": _integer, "name": _text})
        if category["name"] in names:
            raise ValueError(
                f"{where}: a second category {category['name']!r}; give each its own name"
            )
        names.add(str(category["name"]))
        truth["categories"].append({**category, "frequency": record.get("frequency", "")})
    truth["categories"].sort(key=lambda category: cast("int", category["id"]))
    return truth


def read_results(results: Sequence[Record], truth: Truth, iou_type: IouType) -> list[Detection]:
    """Copy the keys that count: given boxes and masks, the evaluator would mix their areas.

    Args:
        results: One record per detection.
        truth: From `read_ground_truth`.
        iou_type: Masks or boxes.

    Raises:
        ValueError: A key is missing, a value wrong, or an id not the ground truth's; names it.
    """
    images, categories = _by_id(truth["images"]), _by_id(truth["categories"])
    shape_key = SHAPE_KEYS[iou_type]
    ids = dict.fromkeys(("image_id", "category_id"), _integer)
    checks: dict[str, Check] = {**ids, "score": _number, shape_key: _anything}
    detections = [_take(record, where, checks) for where, record in _places(results, "results")]
    used = [{cast("int", d[key]) for d in detections} for key in ids]
    _check_known("results", "image", used[0], images, "give the annotations of these images")
    _check_known("results", "category", used[1], categories, "map labels to its category ids")
    for i, detection in enumerate(detections):
        shape, where = detection[shape_key], f"results[{i}]"
        image = images[cast("int", detection["image_id"])]
        detection[shape_key] = (
            _rle(shape, image, where) if iou_type == "segm" else _box(shape, where)
        )
    return detections


def _by_id(records: list[dict[str, object]]) -> dict[int, dict[str, object]]:
    return {cast("int", record["id"]): record for record in records}


def _places(records: object, where: str) -> Iterator[tuple[str, Record]]:
    """Each record with its place."""
    return ((f"{where}[{i}]", r) for i, r in enumerate(cast("Sequence[Record]", records)))


def _take(record: Record, where: str, checks: Mapping[str, Check]) -> dict[str, object]:
    """The keys named, each checked."""
    missing = [key for key in checks if key not in record]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; it needs {', '.join(checks)}")
    return {key: check(record[key], key, where) for key, check in checks.items()}


def _check_known(where: str, kind: str, used: set[int], known: Collection[int], fix: str) -> None:
    unknown = sorted(used.difference(known))
    if unknown:
        named = ", ".join(str(key) for key in unknown[:_MAX_IDS_NAMED])
        more = f" and {len(unknown) - _MAX_IDS_NAMED} more" if unknown[_MAX_IDS_NAMED:] else ""
        known_as = f"are not among the {len(known)} of the ground truth"
        raise ValueError(f"{where}: {kind} ids {named}{more} {known_as}; {fix}")


def _anything(value: object, key: str, where: str) -> object:
    return value


def _text(value: object, key: str, where: str) -> str:
    return str(value)


def _listed(value: object, key: str, where: str) -> list[int]:
    return list(cast("Sequence[int]", value))


def _integer(value: object, key: str, where: str) -> int:
    try:
        return operator.index(cast("int", value))
    except TypeError:
        raise ValueError(f"{where}: {key} is {value!r}, expected an integer") from None


def _number(value: object, key: str, where: str) -> float:
    try:
        number = float(cast("float", value))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: {key} is {value!r}, expected a finite number")
    return number


def _box(value: object, where: str) -> list[float]:
    """Four finite numbers: x, y, width, height."""
    sides = cast("Sequence[object]", value) if hasattr(value, "__iter__") else ()
    box = [_number(side, "bbox", where) for side in sides]
    if len(box) != 4:
        raise ValueError(f"{where}: bbox is {value!r}, expected [x, y, width, height]")
    return box


def _rle(value: object, image: Record, where: str) -> dict[str, object]:
    """A compressed RLE of the image's size; of any other size it would match nothing, unsaid."""
    rle = value if isinstance(value, Mapping) else {}
    if not isinstance(rle.get("counts"), (str, bytes)):
        raise ValueError(
            f"{where}: segmentation is no compressed RLE ('size': [height, width], 'counts': str "
            "or bytes); encode the full-size mask with pycocotools.mask.encode"
        )
    size, expected = list(rle.get("size", [])), [image["height"], image["width"]]
    if size != expected:
        raise ValueError(
            f"{where}: the mask's [height, width] is {size}, that of image {image['id']} is "
            f"{expected}; paste masks into the full image"
        )
    return {"size": size, "counts": rle["counts"]}
