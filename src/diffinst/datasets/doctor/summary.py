"""Counts images, objects and classes, measures them, and advises what that asks for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils

from diffinst.config import PostprocessConfig, TrainConfig
from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.tables import Tables
from diffinst.datasets.problems import Place

SIDE_STEPS = (8, 16, 32, 96)  # pixels; the last two part COCO's small, medium and large
FEW = 10  # objects of a class
UNEVEN = 100  # times as many objects of one class as of another
SMALL_SHARE = 0.25  # of the objects, from which on advice is due
NANO_PROPOSALS = 300  # presets/nano.yaml
NANO_LONG_SIDE = 1333
USUAL_PROPOSALS = TrainConfig().proposals
USUAL_DETECTIONS = PostprocessConfig().max_detections
COMFORTABLE_SIDE = 40  # pixels of the network input: the shipped nuclei model's median object


@dataclass(frozen=True, slots=True)
class Summary:
    """One split in numbers, of what can be used for training.

    Attributes:
        split: Its name.
        images: How many.
        objects: How many, crowds aside.
        classes: How many have objects, and of how many.
        per_image: Objects on an image: median, most.
        sides: Of objects, the root of the box area in pixels: 5, 50 and 95 % are smaller.
        side_shares: Of objects, by side: below each of `SIDE_STEPS`, and above the last.
        sizes: Of images (height, width): smallest, most frequent, largest by area.
        class_counts: Objects by class name, in the order of their ids.
    """

    split: str
    images: int
    objects: int
    classes: tuple[int, int]
    per_image: tuple[float, int]
    sides: tuple[float, float, float]
    side_shares: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    class_counts: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return asdict(self)


def summarise(tables: Tables) -> Summary:
    """Count what is kept of a split."""
    counts = [sum(not t.crowd for t in p.kept_things) for p in tables.kept]
    sides = object_sides(tables)
    things = [t for p in tables.kept for t in p.kept_things if not t.crowd]
    by_class = Counter(tables.classes[t.category_id] for t in things)
    sizes = Counter(p.size for p in tables.kept if p.size is not None)
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    low, middle, high = np.percentile(sides, (5, 50, 95)) if len(sides) else (0.0, 0.0, 0.0)
    places = np.searchsorted(SIDE_STEPS, sides, side="right")
    fractions = np.bincount(places, minlength=len(SIDE_STEPS) + 1) / max(len(sides), 1)
    return Summary(
        split=tables.name,
        images=len(counts),
        objects=sum(counts),
        classes=(len(by_class), len(tables.classes)),
        per_image=(float(np.median(counts)) if counts else 0.0, max(counts, default=0)),
        sides=(float(low), float(middle), float(high)),
        side_shares=tuple(fractions.tolist()),
        sizes=(ordered[0], sizes.most_common(1)[0][0], ordered[-1]) if ordered else (),
        class_counts={name: by_class[name] for name in tables.classes.values()},
    )


def object_sides(tables: Tables) -> npt.NDArray[np.float64]:
    """Root of the area of each object's box, in pixels."""
    masks = [t.mask for p in tables.kept for t in p.kept_things if t.mask and not t.crowd]
    if not masks:
        return np.zeros(0)
    boxes = np.asarray(mask_utils.toBbox(masks), dtype=np.float64)
    sides: npt.NDArray[np.float64] = np.sqrt(boxes[:, 2] * boxes[:, 3])
    return sides


def advise(tables: Tables, summary: Summary) -> None:
    """Note what is no defect but asks for other settings, or for a look."""
    boxes_only = tables.notes.has("boxes-only")  # which says enough
    for image in tables.kept:
        if not image.kept_things and not boxes_only:
            tables.notes.note("no-objects", image.place())
        for thing in image.kept_things:
            if thing.crowd:
                tables.notes.note("crowd", image.place_of(thing))
    _advise_crowded(tables, summary)
    if tables.name == "train":
        if not summary.images:
            tables.notes.note("no-images", Place(file_name=str(tables.files.annotations)))
        elif not summary.objects and not boxes_only:
            tables.notes.note("no-objects-at-all", Place())
        _advise_small(summary, tables.notes)
        _advise_classes(summary, tables.notes)


def _advise_crowded(tables: Tables, summary: Summary) -> None:
    counts = [(sum(not t.crowd for t in p.kept_things), p) for p in tables.kept]
    crowded = [(count, p) for count, p in counts if count > USUAL_DETECTIONS]
    if not crowded:
        return
    crowded.sort(key=lambda pair: -pair[0])
    most = summary.per_image[1]
    above = [sum(n > limit for n, _ in counts) for limit in (NANO_PROPOSALS, USUAL_PROPOSALS)]
    detections = math.ceil(most / 100) * 100
    proposals = max(NANO_PROPOSALS, math.ceil(1.25 * most / 100) * 100)
    tables.notes.tell(
        "many-objects",
        count=len(crowded),
        places=[image.place(f"{count} objects") for count, image in crowded],
        images="1 image has" if len(crowded) == 1 else f"{len(crowded)} images have",
        usual_detections=USUAL_DETECTIONS,
        nano=NANO_PROPOSALS,
        usual=USUAL_PROPOSALS,
        above_nano=above[0],
        above_usual=above[1],
        most=most,
        proposals=proposals,
        detections=detections,
    )


def _advise_small(summary: Summary, notes: Notebook) -> None:
    small = sum(summary.side_shares[:2])
    if small < SMALL_SHARE:
        return
    middle = summary.sides[1]
    zoom = min(4.0, max(1.5, round(2 * COMFORTABLE_SIDE / middle) / 2))
    long_side = math.ceil(zoom * max(summary.sizes[1]) / 32) * 32
    notes.tell(
        "small-objects",
        count=round(small * summary.objects),
        small=small,
        tiny=summary.side_shares[0],
        steps=SIDE_STEPS,
        middle=middle,
        zoom=zoom,
        low=0.75 * zoom,
        high=1.25 * zoom,
        longer=f" --preprocess.long-side {long_side}" if long_side > NANO_LONG_SIDE else "",
        noise=math.ceil(3 * zoom * middle / 32) * 32,
    )


def _advise_classes(summary: Summary, notes: Notebook) -> None:
    filled = {name: count for name, count in summary.class_counts.items() if count}
    for name, count in filled.items():
        if count < FEW:
            notes.note("few-objects", Place(detail=f"'{name}': {count}"))
    if not filled:
        return
    least, most = min(filled, key=filled.__getitem__), max(filled, key=filled.__getitem__)
    if filled[most] >= UNEVEN * filled[least]:
        rare = [name for name, count in filled.items() if UNEVEN * count <= filled[most]]
        rare.sort(key=filled.__getitem__)
        notes.tell(
            "imbalance",
            count=len(rare),
            places=[Place(detail=f"'{name}': {filled[name]}") for name in rare],
            most=most,
            most_count=filled[most],
            least=least,
            least_count=filled[least],
            times=UNEVEN,
        )
