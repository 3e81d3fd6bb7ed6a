"""A result in the forms of other tools: COCO, supervision, pandas, label map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.datasets.segmentation import checked, run_lengths
from diffinst.results.crops import CompressedRLE, CroppedMasks

if TYPE_CHECKING:
    import pandas
    import supervision

    from diffinst.results.instances import Instances

BoxChoice: TypeAlias = Literal["tight", "predicted"]
"""Boxes that are handed on: the smallest ones around the masks, or those that were predicted, which
may cut a mask. An empty mask has its predicted box in either case."""


OPTIONAL = ("ids", "stability", "score_spread", "mask_agreement")
"""Fields of `Instances` that may be absent, one value per instance each."""
NOTED = ("track_id", *OPTIONAL[1:])
"""Their names in files."""


class _Required(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: CompressedRLE


class CocoResult(_Required, total=False):
    """One instance in COCO's results format; `bbox` is x, y, width, height."""

    track_id: int
    stability: float
    score_spread: float
    mask_agreement: float


def to_coco(
    found: Instances, image_id: int, category_ids: Sequence[int] | None, *, boxes: BoxChoice
) -> list[CocoResult]:
    """See `Instances.to_coco`."""
    if category_ids is None:
        category_ids = range(1, len(found.class_names) + 1)
    if len(category_ids) != len(found.class_names):
        raise ValueError(
            f"{len(category_ids)} category ids for {len(found.class_names)} classes; give one "
            "id for each class, in the order of class_names"
        )
    scores, labels, rles = found.scores.tolist(), found.labels.tolist(), found.mask_crops.to_rle()
    results: list[CocoResult] = [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            "segmentation": rle,
        }
        for (x0, y0, x1, y1), score, label, rle in zip(
            _with(found, boxes).boxes.tolist(), scores, labels, rles, strict=True
        )
    ]
    for result, values in zip(results, noted(found), strict=True):
        result.update(values)  # type: ignore[typeddict-item]
    return results


def noted(found: Instances) -> list[dict[str, int | float]]:
    """The optional fields of each instance that are there, by the names NOTED."""
    columns = {NOTED[OPTIONAL.index(n)]: v.tolist() for n, v in found.optional().items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(found))]


def from_coco(
    results: Sequence[CocoResult],
    image_size: tuple[int, int],
    class_names: tuple[str, ...],
    category_ids: Sequence[int] | None,
) -> Instances:
    """See `Instances.from_coco`."""
    from diffinst.results.instances import Instances

    known = list(range(1, len(class_names) + 1) if category_ids is None else category_ids)
    if not results:
        return Instances.empty(image_size, class_names)
    for i, result in enumerate(results):
        size, category = tuple(result["segmentation"]["size"]), result["category_id"]
        if size != image_size:
            raise ValueError(
                f"result {i}: its mask belongs to an image of {size}, not of {image_size} (height, "
                "width); give the results of one image with its size"
            )
        if category not in known:
            raise ValueError(f"result {i}: category_id is {category}; known are {known}")
    x, y, width, height = torch.tensor([list(map(float, r["bbox"])) for r in results]).unbind(1)
    given = {name: _given(results, name) for name in OPTIONAL}
    return Instances(
        boxes=torch.stack([x, y, x + width, y + height], 1),
        scores=torch.tensor([float(r["score"]) for r in results]),
        labels=torch.tensor([known.index(r["category_id"]) for r in results]),
        mask_crops=from_rle([r["segmentation"] for r in results], image_size),
        image_size=image_size,
        class_names=class_names,
        ids=given["ids"],
        stability=given["stability"],
        score_spread=given["score_spread"],
        mask_agreement=given["mask_agreement"],
    )


def from_rle(rles: Sequence[CompressedRLE], image_size: tuple[int, int]) -> CroppedMasks:
    """What `CroppedMasks.to_rle` gave, read again; of each the columns it lies in.

    Raises:
        DatasetError: Run lengths that are none, or of another image size.
    """
    windows, patches = torch.zeros(len(rles), 4, dtype=torch.int64), []
    rows = image_size[0]
    for i, rle in enumerate(rles):
        checked({"size": rle["size"], "counts": rle["counts"]}, *image_size)
        runs = run_lengths(rle["counts"])
        ends = np.cumsum(runs)[1::2]  # of what is there; runs go down the columns
        begins = ends - runs[1::2]
        begins, ends = begins[ends > begins], ends[ends > begins]
        if not len(ends):
            patches.append(torch.zeros(0, 0, dtype=torch.bool))
            continue
        x, width = int(begins[0]) // rows, (int(ends[-1]) - 1) // rows - int(begins[0]) // rows + 1
        steps = np.zeros(width * rows + 1, np.int8)
        steps[begins - x * rows] += 1  # each place once among begins, and among ends
        steps[ends - x * rows] -= 1
        columns = np.cumsum(steps[:-1], dtype=np.int8).reshape(width, rows)
        used = np.flatnonzero(columns.any(0))
        y, height = int(used[0]), int(used[-1] - used[0]) + 1
        windows[i] = torch.tensor([y, x, height, width])
        patch = columns[:, y : y + height].T.astype(bool, order="C")
        patches.append(torch.from_numpy(patch))
    return CroppedMasks(windows, tuple(patches), image_size)


def _given(results: Sequence[CocoResult], name: str) -> Tensor | None:
    """An optional field, if all results have it."""
    key = NOTED[OPTIONAL.index(name)]
    values = [value for result in results if (value := result.get(key)) is not None]
    return torch.tensor(values) if len(values) == len(results) else None


def to_supervision(found: Instances, *, boxes: BoxChoice) -> supervision.Detections:
    """See `Instances.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise _not_installed("to_supervision", "supervision") from error
    masks: NDArray[np.bool_] | supervision.CompactMask
    inclusive = found.mask_crops.tight_boxes().cpu().numpy() - (0, 0, 1, 1)
    try:
        masks = supervision.CompactMask.from_coco_rle(
            found.mask_crops.to_rle(), inclusive, found.image_size
        )
    except (AttributeError, ValueError):  # an older version, or too large an image for it
        masks = found.masks.cpu().numpy()
    return supervision.Detections(
        xyxy=_with(found, boxes).boxes.cpu().numpy(),
        mask=masks,
        confidence=found.scores.cpu().numpy(),
        class_id=found.labels.cpu().numpy(),
        tracker_id=None if found.ids is None else found.ids.cpu().numpy(),
        data={"class_name": _class_name(found), **_columns(found, "ids")},
    )


def to_pandas(found: Instances) -> pandas.DataFrame:
    """See `Instances.to_pandas`."""
    try:
        import pandas
    except ImportError as error:
        raise _not_installed("to_pandas", "pandas") from error
    columns = {
        "label": found.labels.cpu().numpy(),
        "class_name": _class_name(found),
        "score": found.scores.cpu().numpy(),
        **dict(zip(("x0", "y0", "x1", "y1"), found.boxes.cpu().numpy().T, strict=True)),
        "area": found.mask_crops.area().cpu().numpy(),
        **_columns(found),
    }
    return pandas.DataFrame(columns)


def to_label_map(found: Instances) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """See `Instances.to_label_map`."""
    large = len(found) > np.iinfo(np.uint16).max
    label_map = np.zeros(found.image_size, dtype=np.uint32 if large else np.uint16)
    placed = list(found.mask_crops.placed())
    by_score = found.scores.argsort(descending=True, stable=True).tolist()
    for rank, i in reversed(list(enumerate(by_score, start=1))):
        (y, x), mask = placed[i]
        label_map[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = rank
    return label_map


def _with(found: Instances, boxes: BoxChoice) -> Instances:
    match boxes:
        case "tight":
            return found.tight()
        case "predicted":
            return found
        case _:
            raise ValueError(f"boxes is {boxes!r}; allowed are 'tight' and 'predicted'")


def _class_name(found: Instances) -> NDArray[np.str_]:
    """(n,) the class of each instance by name."""
    names: NDArray[np.str_] = np.array(found.class_names, dtype=np.str_)
    return names.take(found.labels.cpu().numpy())


def _columns(found: Instances, *without: str) -> dict[str, NDArray[np.generic]]:
    """The optional fields that are there, but for some."""
    return {n: v.cpu().numpy() for n, v in found.optional().items() if n not in without}


def _not_installed(method: str, package: str) -> ImportError:
    return ImportError(
        f"{method} needs the package {package}; run `pip install diffinst[{package}]`"
    )
