"""How good are the detections? COCO's average precision and recall, from plain result lists."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, cast

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

IouType = Literal["segm", "bbox"]
Record = Mapping[str, object]
Truth = dict[str, list[dict[str, object]]]  # "images", "annotations", "categories"

# Positions in the evaluator's arrays.
_IOU_50, _IOU_75 = 0, 5  # of the thresholds 0.50, 0.55, ..., 0.95
_ALL, _SMALL, _MEDIUM, _LARGE = 0, 1, 2, 3  # COCO's areas

_SHAPE_KEYS: dict[IouType, str] = {"segm": "segmentation", "bbox": "bbox"}
_MAX_IDS_NAMED = 10  # in an error


@dataclass(frozen=True, kw_only=True)
class CocoMetrics:
    """COCO's numbers for one set of results; each in [0, 1], or NaN where nothing is to be found.

    Attributes:
        ap: Average precision over 101 recall points, all classes that have objects and the IoU
            thresholds 0.50, 0.55, ..., 0.95; `ap50`, `ap75`: at one threshold; `ap_small`,
            `ap_medium`, `ap_large`: of objects below 32^2 pixels, from there to 96^2, and above.
        ar1: Recall over the same thresholds and classes with one result per picture and class;
            `ar10`: with ten (NaN if `max_detections` is less); `ar_max`: with `max_detections`,
            which also holds for `ar_small`, `ar_medium`, `ar_large` and every `ap`.
        per_class: AP by category name, in the order of category ids.
        precision: (10, 101, num_classes) float64 by IoU threshold, recall 0.00, 0.01, ..., 1.00
            and class in the order of `per_class`; NaN for classes without objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    precision: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Name the twelve numbers for a log, without those per class.

        Args:
            prefix: What was measured, such as `mask` or `box`.

        Returns:
            `mask/AP`, `mask/AP50`, `mask/AP75`, `mask/AP_small`, ..., `mask/AR1`, ... by name.
        """
        names = [f.name for f in fields(self) if f.name.startswith(("ap", "ar"))]
        return {f"{prefix}/{n[:2].upper()}{n[2:]}": getattr(self, n) for n in names}


def coco_metrics(
    ground_truth: Path | Record,
    results: Sequence[Record],
    *,
    iou_type: IouType = "segm",
    max_detections: int = 100,
    image_ids: Collection[int] | None = None,
) -> CocoMetrics:
    """Compare results with ground truth by COCO's rules; the inputs are left as they are.

    Only the key that `iou_type` names is read from a result, so results may carry boxes and masks
    at once; the area of a result is that of its mask or of its box accordingly. The area of an
    object is always its annotation's `area`, as in the COCO tools. Annotations of unlisted images
    or categories are ignored, as there.

    Args:
        ground_truth: A COCO annotation file or its content. Annotations need `image_id`,
            `category_id`, `area` and `segmentation` or `bbox`; images need `id` and, for masks,
            `height` and `width`.
        results: One record per detection: `image_id`, `category_id`, `score` (higher is surer) and
            `segmentation` (compressed RLE at the picture's full size) or `bbox` (x, y, width,
            height in pixels of the picture).
        iou_type: Compare masks (`segm`) or boxes (`bbox`).
        max_detections: Results used per picture and class, best first.
        image_ids: Evaluate these pictures only (none at all gives NaN); results for other known
            pictures are left out.

    Returns:
        The twelve numbers, AP per class and the precision curves.

    Raises:
        FileNotFoundError: `ground_truth` is a path at which there is no file.
        ValueError: An unknown `iou_type`, `max_detections` below 1, an id that the ground truth
            does not have, a missing key, a value that is not a finite number, a mask that is no
            compressed RLE or has another size than its picture, or two categories of one name.

    Example:
        >>> cell = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9], "area": 81}
        >>> classes = [{"id": 1, "name": "cell"}]
        >>> truth = {"images": [{"id": 1}], "annotations": [cell], "categories": classes}
        >>> coco_metrics(truth, [{**cell, "score": 0.9}], iou_type="bbox").ap
        1.0
    """
    if iou_type not in _SHAPE_KEYS:
        raise ValueError(f"iou_type is {iou_type!r}, expected 'segm' (masks) or 'bbox' (boxes)")
    if not isinstance(max_detections, int) or max_detections < 1:
        raise ValueError(f"max_detections is {max_detections!r}, expected an integer of at least 1")

    truth, names = _read_ground_truth(ground_truth, iou_type)
    images = {cast("int", image["id"]): image for image in truth["images"]}
    detections = _read_results(results, images, names, iou_type)
    if image_ids is not None:
        kept = set(image_ids)
        _check_known("image_ids", "image", kept, images, "leave them out")
        truth["images"] = [images[image_id] for image_id in sorted(kept)]
        truth["annotations"] = [ann for ann in truth["annotations"] if ann["image_id"] in kept]
        detections = [detection for detection in detections if detection["image_id"] in kept]

    coco = COCO(truth)
    evaluator = COCOeval_faster(coco, coco.loadRes(detections), iou_type)
    limits = [limit for limit in (1, 10) if limit < max_detections] + [max_detections]
    evaluator.params.maxDets = limits
    evaluator.evaluate()
    evaluator.accumulate()
    return _summarize(evaluator.eval, limits, [name for _, name in sorted(names.items())])


def _summarize(
    arrays: Mapping[str, NDArray[np.float64]], limits: list[int], class_names: list[str]
) -> CocoMetrics:
    """Average the evaluator's arrays at the last limit; its own summary assumes a limit of 100."""
    precision = arrays["precision"]  # (10 thresholds, 101 recalls, classes, 4 areas, limits)
    recall = arrays["recall"]  # (10 thresholds, classes, 4 areas, limits)
    recall_at = {limit: _mean(recall[:, :, _ALL, i]) for i, limit in enumerate(limits)}
    precision_all = precision[..., _ALL, -1]  # (10, 101, classes)
    return CocoMetrics(
        ap=_mean(precision_all),
        ap50=_mean(precision_all[_IOU_50]),
        ap75=_mean(precision_all[_IOU_75]),
        ap_small=_mean(precision[..., _SMALL, -1]),
        ap_medium=_mean(precision[..., _MEDIUM, -1]),
        ap_large=_mean(precision[..., _LARGE, -1]),
        ar1=recall_at[1],
        ar10=recall_at.get(10, math.nan),
        ar_max=recall_at[limits[-1]],
        ar_small=_mean(recall[:, :, _SMALL, -1]),
        ar_medium=_mean(recall[:, :, _MEDIUM, -1]),
        ar_large=_mean(recall[:, :, _LARGE, -1]),
        per_class={name: _mean(precision_all[..., k]) for k, name in enumerate(class_names)},
        precision=np.where(precision_all > -1, precision_all, np.nan),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the defined values (the evaluator marks the others with -1); NaN where none is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _read_ground_truth(source: Path | Record, iou_type: IouType) -> tuple[Truth, dict[int, str]]:
    """Copy what the evaluator needs, which writes into what it is given; names by category id."""
    if isinstance(source, Mapping):
        content, name = source, "ground truth"
    else:
        content, name = cast("Record", json.loads(source.read_text(encoding="utf-8"))), source.name
    _check_keys(content, parts := ("images", "annotations", "categories"), name)
    images, objects, categories = (content[key] for key in parts)

    names: dict[int, str] = {}
    for where, category in _records(categories, ("id", "name"), f"{name}: categories"):
        class_name = str(category["name"])
        if class_name in names.values():
            raise ValueError(f"{where}: a second category {class_name!r}; give each its own name")
        names[_integer(category, "id", where)] = class_name

    shape_key = _SHAPE_KEYS[iou_type]
    needed_of_image = ("id", "height", "width") if iou_type == "segm" else ("id",)
    needed_of_object = ("image_id", "category_id", "area", shape_key)
    truth: Truth = {
        "categories": [{"id": category_id} for category_id in names],
        "images": [
            {key: _integer(image, key, where) for key in needed_of_image}
            for where, image in _records(images, needed_of_image, f"{name}: images")
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


def _read_results(
    results: Sequence[Record],
    images: Mapping[int, Record],
    names: Mapping[int, str],
    iou_type: IouType,
) -> list[dict[str, object]]:
    """Copy the keys that count: given boxes and masks, the evaluator would mix their areas."""
    shape_key = _SHAPE_KEYS[iou_type]
    needed = ("image_id", "category_id", "score", shape_key)
    detections: list[dict[str, object]] = []
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
    _check_known("results", "image", used_images, images, "give the annotations of these pictures")
    _check_known("results", "category", used_categories, names, "map labels to its category ids")
    return detections


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
    """A compressed RLE of the picture's size; of any other size it would match nothing, unsaid."""
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
            f"{expected}; paste masks into the full picture"
        )
    return {"size": size, "counts": rle["counts"]}
