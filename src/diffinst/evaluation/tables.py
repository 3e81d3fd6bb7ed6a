"""What must ground truth and results look like? Checks them and copies what an evaluator needs."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

IouType = Literal["segm", "bbox"]
Record = Mapping[str, object]
Detection = dict[str, object]
Truth = dict[str, list[dict[str, object]]]  # "images", "annotations", "categories"

_SHAPE_KEYS: dict[IouType, str] = {"segm": "segmentation", "bbox": "bbox"}
_FEDERATED_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")
_MAX_IDS_NAMED = 10  # in an error


def check_settings(iou_type: IouType, max_detections: int) -> None:
    """Refuse what is no kind of shape or no number of results.

    Raises:
        ValueError: `iou_type` is unknown or `max_detections` is no integer of at least 1.
    """
    if iou_type not in _SHAPE_KEYS:
        raise ValueError(f"iou_type is {iou_type!r}, expected 'segm' (masks) or 'bbox' (boxes)")
    if not isinstance(max_detections, int) or max_detections < 1:
        raise ValueError(f"max_detections is {max_detections!r}, expected an integer of at least 1")


def read_ground_truth(
    source: Path | Record, iou_type: IouType, *, federated: bool = False
) -> tuple[Truth, dict[int, str]]:
    """Copy what the evaluator needs, which writes into what it is given.

    Args:
        source: A COCO or LVIS annotation file or its content.
        iou_type: Masks or boxes.
        federated: Take along LVIS's fields: `neg_category_ids`, `not_exhaustive_category_ids` of
            the images and, where there is one, the `frequency` of the categories.

    Returns:
        The copy, and the category names by id.

    Raises:
        FileNotFoundError: `source` is a path at which there is no file.
        ValueError: A key is missing or a value wrong; names the place.
    """
    if isinstance(source, Mapping):
        content, name = source, "ground truth"
    else:
        content, name = cast("Record", json.loads(source.read_text(encoding="utf-8"))), source.name
    _check_keys(content, parts := ("images", "annotations", "categories"), name)
    images, objects, categories = (content[key] for key in parts)

    names: dict[int, str] = {}
    frequencies: dict[int, object] = {}
    for where, category in _records(categories, ("id", "name"), f"{name}: categories"):
        class_name = str(category["name"])
        if class_name in names.values():
            raise ValueError(f"{where}: a second category {class_name!r}; give each its own name")
        category_id = _integer(category, "id", where)
        names[category_id] = class_name
        frequencies[category_id] = category.get("frequency", "")

    shape_key = _SHAPE_KEYS[iou_type]
    needed_of_image = ("id", "height", "width") if iou_type == "segm" else ("id",)
    listed = _FEDERATED_KEYS if federated else ()
    needed_of_object = ("image_id", "category_id", "area", shape_key)
    truth: Truth = {
        "categories": [{"id": i, "frequency": frequencies[i]} for i in names],
        "images": [
            {
                **{key: _integer(image, key, where) for key in needed_of_image},
                **{key: list(cast("Sequence[int]", image[key])) for key in listed},
            }
            for where, image in _records(images, (*needed_of_image, *listed), f"{name}: images")
        ],
        "annotations": [
            {
                "image_id": _integer(annotation, "image_id", where),
                "category_id": _integer(annotation, "category_id", where),
                "area": _number(annotation["area"], "area", where),
                "iscrowd": int(bool(annotation.get("iscrowd", 0))),
                shape_key: annotation[shape_key],
            }
            for where, annotation in _records(objects, needed_of_object, f"{name}: annotations")
        ],
    }
    for i, annotation in enumerate(truth["annotations"]):
        annotation["id"] = i + 1  # not the file's: the evaluator takes id 0 for "not matched"
    return truth, names


def read_results(
    results: Sequence[Record], truth: Truth, names: Mapping[int, str], iou_type: IouType
) -> list[Detection]:
    """Copy the keys that count: given boxes and masks, the evaluator would mix their areas.

    Args:
        results: One record per detection.
        truth: From `read_ground_truth`.
        names: From there, too.
        iou_type: Masks or boxes.

    Raises:
        ValueError: A key is missing, a value wrong, or an id not the ground truth's; names it.
    """
    images = {cast("int", image["id"]): image for image in truth["images"]}
    shape_key = _SHAPE_KEYS[iou_type]
    needed = ("image_id", "category_id", "score", shape_key)
    detections: list[Detection] = []
    used_images, used_categories = set(), set()
    for where, result in _records(results, needed, "results"):
        used_images.add(image_id := _integer(result, "image_id", where))
        used_categories.add(category_id := _integer(result, "category_id", where))
        score, shape = _number(result["score"], "score", where), result[shape_key]
        if image_id not in images:
            continue  # named below, with all others
        shape = _rle(shape, images[image_id], where) if iou_type == "segm" else _box(shape, where)
        ids = {"image_id": image_id, "category_id": category_id}
        detections.append({**ids, "score": score, shape_key: shape})
    _check_known("results", "image", used_images, images, "give the annotations of these images")
    _check_known("results", "category", used_categories, names, "map labels to its category ids")
    return detections


def keep_images(
    truth: Truth, detections: list[Detection], image_ids: Collection[int]
) -> tuple[Truth, list[Detection]]:
    """Ground truth and results of some of the images.

    Raises:
        ValueError: The ground truth does not have one of them.
    """
    images = {cast("int", image["id"]): image for image in truth["images"]}
    kept = set(image_ids)
    _check_known("image_ids", "image", kept, images, "leave them out")
    chosen: Truth = {
        "categories": truth["categories"],
        "images": [images[image_id] for image_id in sorted(kept)],
        "annotations": [ann for ann in truth["annotations"] if ann["image_id"] in kept],
    }
    return chosen, [detection for detection in detections if detection["image_id"] in kept]


def _records(records: object, needed: Sequence[str], where: str) -> Iterator[tuple[str, Record]]:
    """Each record with its place, such as `results[3]`, once it has the keys needed."""
    for i, record in enumerate(cast("Sequence[Record]", records)):
        _check_keys(record, needed, place := f"{where}[{i}]")
        yield place, record


def _check_keys(record: Record, needed: Sequence[str], where: str) -> None:
    missing = [key for key in needed if key not in record]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; it needs {', '.join(needed)}")


def _check_known(where: str, kind: str, used: set[int], known: Collection[int], fix: str) -> None:
    unknown = sorted(used.difference(known))
    if unknown:
        named = ", ".join(str(key) for key in unknown[:_MAX_IDS_NAMED])
        more = f" and {len(unknown) - _MAX_IDS_NAMED} more" if unknown[_MAX_IDS_NAMED:] else ""
        known_as = f"are not among the {len(known)} of the ground truth"
        raise ValueError(f"{where}: {kind} ids {named}{more} {known_as}; {fix}")


def _integer(record: Record, key: str, where: str) -> int:
    try:
        return operator.index(cast("int", record[key]))
    except TypeError:
        raise ValueError(f"{where}: {key} is {record[key]!r}, expected an integer") from None


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
