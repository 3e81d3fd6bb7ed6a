"""Every defect planted in a clean dataset is found where it is, and repaired where that is said."""

import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from diffinst.datasets.doctor import repair
from diffinst.datasets.doctor.examine import Report, examine
from diffinst.datasets.doctor.findings import Finding
from diffinst.datasets.doctor.images import Facts, inspect
from diffinst.datasets.problems import catalogue
from diffinst.datasets.segmentation import DatasetError, rasterize
from diffinst.datasets.synthetic import make_shapes

HEIGHT, WIDTH = 96, 128
Data = Any  # of conftest.py
Entry = dict[str, Any]
Trains = Callable[[Path], bool]
State = Callable[[Path], object]
Edit = Callable[[Data, list[Entry]], None]


@dataclass(frozen=True)
class Plant:
    """A defect.

    `edit` gets the data and the annotations of 'train'. `places` are (image id, annotation id) of
    what is to be found; annotations 1 to 5 lie on image 1, the next 6 on image 2. `left` says that
    `--fix` cannot repair it, `also` which findings follow from it.
    """

    code: str
    edit: Edit
    places: tuple[tuple[int | None, int | None], ...]
    split: str = "train"
    left: bool = False
    also: tuple[str, ...] = ()
    name: str = ""


PLANTS: list[Plant] = []


def plant(
    code: str, *places: tuple[int | None, int | None], **details: Any
) -> Callable[[Edit], Edit]:
    def register(edit: Edit) -> Edit:
        name = edit.__name__.removeprefix("_").replace("_", " ")
        PLANTS.append(Plant(code, edit, places, name=name, **details))
        return edit

    return register


def rle_of(mask: np.ndarray) -> Entry:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


# --- the folder and its files


@plant("missing-split", (None, None), left=True)
def _no_training_split(data: Data, objects: list[Entry]) -> None:
    data.file("train").unlink()
    data.train = None


@plant("missing-split", (None, None), split="val", left=True, also=("unused-class",))
def _annotations_without_their_folder(data: Data, objects: list[Entry]) -> None:
    shutil.rmtree(data.root / "val")
    for category in (data.train, data.val):
        category["categories"].append({"id": 3, "name": "moon"})


@plant("no-val", (None, None), split="val", left=True)
def _no_val(data: Data, objects: list[Entry]) -> None:
    shutil.rmtree(data.root / "val")
    data.file("val").unlink()
    data.val = None


@plant("broken-file", (None, None), left=True)
def _cut_json(data: Data, objects: list[Entry]) -> None:
    text = data.file("train").read_text(encoding="utf-8")
    data.file("train").write_text(text[: len(text) // 2], encoding="utf-8")
    data.train = None


@plant("broken-file", (None, None), left=True)
def _not_utf8(data: Data, objects: list[Entry]) -> None:
    data.file("train").write_bytes(b'{"images": "\xff"}')
    data.train = None


@plant("missing-table", (None, None), left=True)
def _no_categories(data: Data, objects: list[Entry]) -> None:
    del data.train["categories"]


@plant("missing-table", (None, None), left=True)
def _empty_categories(data: Data, objects: list[Entry]) -> None:
    data.train["categories"] = []


@plant("missing-table", (None, None), left=True)
def _a_list(data: Data, objects: list[Entry]) -> None:
    data.train = objects


@plant("no-images", (None, None), left=True, also=("unnamed-image", "class-not-in-train"))
def _nothing_listed(data: Data, objects: list[Entry]) -> None:
    data.train.update(images=[], annotations=[])


@plant("no-objects-at-all", (None, None), left=True, also=("no-objects", "class-not-in-train"))
def _no_annotations(data: Data, objects: list[Entry]) -> None:
    objects.clear()


# --- entries


@plant("image-entry", (1, None))
def _size_is_text(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["height"] = "96"


@plant("image-entry", (1, None))
def _no_size(data: Data, objects: list[Entry]) -> None:
    del data.train["images"][0]["width"]


@plant("image-entry", (1, None))
def _negative_size(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["width"] = -128


@plant("image-entry", (1, None))
def _a_height_that_no_image_has(data: Data, objects: list[Entry]) -> None:
    data.polygon(0)
    data.train["images"][0]["height"] = 2**31 - 1  # drawn, its mask would take all memory


@plant("image-entry", (1, None), also=("unnamed-image",))
def _no_file_name(data: Data, objects: list[Entry]) -> None:
    del data.train["images"][0]["file_name"]
    objects[:] = [entry for entry in objects if entry["image_id"] != 1]


@plant("image-entry", (None, None))
def _image_is_no_object(data: Data, objects: list[Entry]) -> None:
    data.train["images"].append(7)


@plant("annotation-entry", (1, 2))
def _box_of_three_numbers(data: Data, objects: list[Entry]) -> None:
    objects[1]["bbox"] = [1, 2, 3]


@plant("annotation-entry", (1, 2))
def _box_with_nan(data: Data, objects: list[Entry]) -> None:
    objects[1]["bbox"][2] = float("nan")


@plant("annotation-entry", (1, 2), (1, 3))
def _negative_area_and_odd_flag(data: Data, objects: list[Entry]) -> None:
    objects[1]["area"] = -1
    objects[2]["iscrowd"] = "0"


@plant("annotation-entry", (1, 2))
def _strange_flag(data: Data, objects: list[Entry]) -> None:
    objects[1]["iscrowd"] = 2


@plant("annotation-entry", (None, 2))
def _no_image_id(data: Data, objects: list[Entry]) -> None:
    del objects[1]["image_id"]


@plant("annotation-entry", (1, None))
def _no_id(data: Data, objects: list[Entry]) -> None:
    del objects[1]["id"]


@plant("annotation-entry", (1, 2))
def _id_is_a_fraction(data: Data, objects: list[Entry]) -> None:
    objects[1]["id"] = 2.0


@plant("annotation-entry", (None, None))
def _annotation_is_no_object(data: Data, objects: list[Entry]) -> None:
    objects.append([])  # type: ignore[arg-type]


@plant("category-entry", (None, None))
def _name_is_a_number(data: Data, objects: list[Entry]) -> None:
    for content in (data.train, data.val):
        content["categories"][1]["name"] = "5"
    data.train["categories"][1]["name"] = 5


@plant("category-entry", (None, None))
def _strange_frequency(data: Data, objects: list[Entry]) -> None:
    data.train["categories"][1]["frequency"] = "x"


@plant("mixed-ids", (None, None))
def _one_id_is_text(data: Data, objects: list[Entry]) -> None:
    objects[1]["id"] = "2"


@plant("lvis-classes", (1, None))
def _unknown_absent_class(data: Data, objects: list[Entry]) -> None:
    for image in data.train["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    data.train["images"][0]["neg_category_ids"] = [1, 9]


@plant("duplicate-image-id", (2, None))
def _two_images_of_one_id(data: Data, objects: list[Entry]) -> None:
    data.train["images"][2]["id"] = 2
    objects[:] = [entry for entry in objects if entry["image_id"] != 3]


@plant("duplicate-image-id", (2, None))
def _entry_twice(data: Data, objects: list[Entry]) -> None:
    data.train["images"].append(data.train["images"][1])


@plant("duplicate-annotation-id", (1, 1))
def _two_objects_of_one_id(data: Data, objects: list[Entry]) -> None:
    objects[1]["id"] = 1


@plant("duplicate-category-id", (None, None))
def _class_twice(data: Data, objects: list[Entry]) -> None:
    data.train["categories"].append(data.train["categories"][0])


@plant("duplicate-category-id", (None, None), left=True)
def _two_classes_of_one_id(data: Data, objects: list[Entry]) -> None:
    data.train["categories"].append({"id": 1, "name": "ball"})


@plant("duplicate-file-name", (None, None))
def _file_twice(data: Data, objects: list[Entry]) -> None:
    data.train["images"].append({**data.train["images"][0], "id": 9})
    objects[0]["image_id"] = 9


@plant("unknown-image", (9, 2))
def _image_not_listed(data: Data, objects: list[Entry]) -> None:
    objects[1]["image_id"] = 9


@plant("unknown-category", (1, 2))
def _class_not_listed(data: Data, objects: list[Entry]) -> None:
    objects[1]["category_id"] = 9


# --- classes


@plant("empty-class-name", (None, None))
def _nameless_class(data: Data, objects: list[Entry]) -> None:
    data.train["categories"][0]["name"] = ""
    data.val["categories"][0]["name"] = "class 1"


@plant("duplicate-class-name", (None, None))
def _two_classes_of_one_name(data: Data, objects: list[Entry]) -> None:
    data.train["categories"].append({"id": 5, "name": "disc"})
    objects[1]["category_id"] = 5


@plant("similar-class-names", (None, None), left=True, also=("unused-class",))
def _disc_and_Disc(data: Data, objects: list[Entry]) -> None:
    for content in (data.train, data.val):
        content["categories"].append({"id": 3, "name": "Disc "})


@plant("classes-differ", (None, None), split="val", also=("class-not-in-train",))
def _class_of_val_alone(data: Data, objects: list[Entry]) -> None:
    data.val["categories"].append({"id": 3, "name": "moon"})
    data.val["annotations"][0]["category_id"] = 3


@plant("category-ids-differ", (None, None), (None, None), split="val")
def _swapped_ids(data: Data, objects: list[Entry]) -> None:
    for category in data.val["categories"]:
        category["id"] = 3 - category["id"]
    for entry in data.val["annotations"]:
        entry["category_id"] = 3 - entry["category_id"]


@plant("class-not-in-train", (None, None), split="val", left=True)
def _class_without_objects_in_train(data: Data, objects: list[Entry]) -> None:
    for content in (data.train, data.val):
        content["categories"].append({"id": 3, "name": "moon"})
    data.val["annotations"][0]["category_id"] = 3


@plant("unused-class", (None, None), split="", left=True)
def _class_without_objects(data: Data, objects: list[Entry]) -> None:
    for content in (data.train, data.val):
        content["categories"].append({"id": 3, "name": "moon"})


@plant("few-objects", (None, None), left=True)
def _one_moon(data: Data, objects: list[Entry]) -> None:
    for content in (data.train, data.val):
        content["categories"].append({"id": 3, "name": "moon"})
    objects[0]["category_id"] = 3


@plant("imbalance", (None, None), left=True, also=("few-objects", "small-objects"))
def _a_hundred_boxes_to_a_moon(data: Data, objects: list[Entry]) -> None:
    _crowded_image(data, objects, category=1, count=90)
    for content in (data.train, data.val):
        content["categories"].append({"id": 3, "name": "moon"})
    objects[0]["category_id"] = 3


# --- images


@plant("missing-image", (1, None))
def _file_is_gone(data: Data, objects: list[Entry]) -> None:
    data.image(0).unlink()


@plant("missing-image", (1, None))
def _letter_case(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["file_name"] = "000000.PNG"


@plant("missing-image", (1, None))
def _other_subfolder(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["file_name"] = "a/000000.png"


@plant("missing-image", (1, None))
def _slash_behind_the_name(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["file_name"] += "/"


@plant("unreadable-image", (1, None))
def _cut_file(data: Data, objects: list[Entry]) -> None:
    content = data.image(0).read_bytes()
    data.image(0).write_bytes(content[: len(content) // 2])


@plant("unreadable-image", (1, None))
def _empty_file(data: Data, objects: list[Entry]) -> None:
    data.image(0).write_bytes(b"")


@plant("wrong-size", (1, None))
def _other_size(data: Data, objects: list[Entry]) -> None:
    Image.open(data.image(0)).resize((64, 48)).save(data.image(0))


@plant("wrong-size", (1, None))
def _a_wrong_number(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0]["height"] = 95


def save_turned(data: Data, orientation: int) -> None:
    """ImageEntry 0 as JPEG with the EXIF mark."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.open(data.image(0)).save(data.root / "train" / "turned.jpg", exif=exif)
    data.image(0).unlink()
    data.train["images"][0]["file_name"] = "turned.jpg"


@plant("wrong-size", (1, None))
def _annotated_before_turning(data: Data, objects: list[Entry]) -> None:
    save_turned(data, 6)


@plant("wrong-size", (1, None))
def _height_is_width(data: Data, objects: list[Entry]) -> None:
    data.train["images"][0].update(height=WIDTH, width=HEIGHT)
    objects[:] = [entry for entry in objects if entry["image_id"] != 1 or entry["id"] == 1]
    data.polygon(0)


@plant("exif-rotation", (1, None), left=True)
def _upside_down(data: Data, objects: list[Entry]) -> None:
    save_turned(data, 3)


@plant("unnamed-image", (None, None))
def _image_without_entry(data: Data, objects: list[Entry]) -> None:
    Image.new("RGB", (32, 32)).save(data.root / "train" / "extra.png")


@plant("duplicate-image", (1, None))
def _same_image_as_bmp(data: Data, objects: list[Entry]) -> None:
    Image.open(data.image(0)).save(data.root / "train" / "again.bmp")
    data.train["images"].append({**data.train["images"][0], "id": 9, "file_name": "again.bmp"})
    objects.append({**objects[0], "id": 99, "image_id": 9})


@plant("leak", (1, None), split="val")
def _val_image_in_train(data: Data, objects: list[Entry]) -> None:
    shutil.copy(data.image(0, "val"), data.root / "train" / "leaked.png")
    data.train["images"].append({**data.val["images"][0], "id": 9, "file_name": "leaked.png"})
    objects.append({**objects[0], "id": 99, "image_id": 9})


@plant("faint-image", (1, None), left=True)
def _grey_image(data: Data, objects: list[Entry]) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(data.image(0))


@plant("16-bit", (1, None), left=True)
def _twelve_of_sixteen_bits(data: Data, objects: list[Entry]) -> None:
    values = np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(values).save(data.image(0))  # stretched, so not faint


@plant("16-bit", (1, None), left=True)
def _sixteen_bits(data: Data, objects: list[Entry]) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(values).save(data.image(0))


@plant("cmyk", (1, None), left=True)
def _for_print(data: Data, objects: list[Entry]) -> None:
    Image.open(data.image(0)).convert("CMYK").save(data.root / "train" / "print.jpg")
    data.image(0).unlink()
    data.train["images"][0]["file_name"] = "print.jpg"


@plant("alpha", (1, None), left=True)
def _half_transparent(data: Data, objects: list[Entry]) -> None:
    image = Image.open(data.image(0)).convert("RGBA")
    image.putalpha(128)
    image.save(data.image(0))


@plant("several-pages", (1, None), left=True)
def _stack(data: Data, objects: list[Entry]) -> None:
    page = Image.open(data.image(0))
    page.save(data.root / "train" / "stack.tif", save_all=True, append_images=[page, page])
    data.image(0).unlink()
    data.train["images"][0]["file_name"] = "stack.tif"


@plant("large-image", (9, None), left=True)
def _wide_image(data: Data, objects: list[Entry]) -> None:
    values = np.tile(np.arange(4001, dtype=np.uint32) % 256, (20, 1)).astype(np.uint8)
    Image.fromarray(values).save(data.root / "train" / "wide.png")
    image = {"id": 9, "file_name": "wide.png", "height": 20, "width": 4001}
    data.train["images"].append(image)
    square = [5, 5, 25, 5, 25, 18, 5, 18]
    objects.append({"id": 99, "image_id": 9, "category_id": 1, "segmentation": [square]})


# --- segmentations


@plant("boxes-only", (None, None), left=True, also=("class-not-in-train",))
def _boxes_of_a_detector(data: Data, objects: list[Entry]) -> None:
    for i, one in enumerate(objects):
        one["segmentation"] = [] if i % 2 else None


@plant("no-segmentation", (1, 2))
def _boxes_alone(data: Data, objects: list[Entry]) -> None:
    del objects[1]["segmentation"]


@plant("segmentation-form", (1, 2))
def _a_text(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = "1 3 10 5"


@plant("segmentation-form", (1, 2))
def _rle_without_size(data: Data, objects: list[Entry]) -> None:
    del objects[1]["segmentation"]["size"]


@plant("segmentation-form", (1, 2))
def _flat_polygon(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = data.polygon(1)


@plant("segmentation-form", (1, 2))
def _nested_points(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)
    objects[1]["segmentation"] = [[square[i : i + 2] for i in range(0, 8, 2)]]


@plant("polygon-pairs", (1, 2))
def _list_of_points(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)
    objects[1]["segmentation"] = [square[i : i + 2] for i in range(0, 8, 2)]


@plant("not-a-number", (1, 2))
def _nan(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)[3] = float("nan")


@plant("not-a-number", (1, 2))
def _text_among_numbers(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)[3] = "60"


@plant("wild-coordinates", (1, 2))
def _far_away(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)[3] = 1e9


@plant("odd-polygon", (1, 2))
def _one_number_too_many(data: Data, objects: list[Entry]) -> None:
    data.polygon(1).append(70.0)


@plant("short-polygon", (1, 2))
def _two_points(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)
    objects[1]["segmentation"].append([1.0, 1.0, 9.0, 9.0])


@plant("empty-segmentation", (1, 2), (1, 3))
def _nothing_drawn(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = []
    objects[2]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


@plant("normalised", (1, 2))
def _shares_of_the_image(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)
    square[:] = [number / (WIDTH, HEIGHT)[i % 2] for i, number in enumerate(square)]
    objects[1]["bbox"] = [70 / WIDTH, 60 / HEIGHT, 20 / WIDTH, 20 / HEIGHT]


@plant("rle-size", (1, 2))
def _mask_of_another_image(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = rle_of(np.eye(40))


@plant("rle-size", (1, 2))
def _size_is_swapped(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"]["size"] = [WIDTH, HEIGHT]


@plant("rle-size", (1, 2))
def _mask_lies_on_its_side(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = rle_of(rasterize(objects[1]["segmentation"], HEIGHT, WIDTH).T)


@plant("rle-broken", (1, 2), (1, 3), (1, 4))
def _cut_runs(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"]["counts"] = objects[1]["segmentation"]["counts"][:-4]
    objects[2]["segmentation"]["counts"] = "no run lengths"
    objects[3]["segmentation"]["counts"] = "\ud800"  # half a character


@plant("rle-broken", (1, 2), (1, 3), (1, 4))
def _runs_beyond_all_images(data: Data, objects: list[Entry]) -> None:
    pixels = HEIGHT * WIDTH
    runs = ([10**400], [2**63, pixels - 2**63], [2**62, 2**62, 2**62, 2**62 + pixels])
    for one, counts in zip(objects[1:4], runs, strict=True):
        one["segmentation"]["counts"] = counts


@plant("outside-image", (1, 2))
def _far_right(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)
    square[::2] = [x + WIDTH for x in square[::2]]


@plant("partly-outside", (1, 2))
def _over_the_edge(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)  # 70 to 90 becomes 118 to 138, the image ends at 128
    square[::2] = [x + 48 for x in square[::2]]
    objects[1]["bbox"] = [118, 60, 20, 20]


@plant("empty-mask", (1, 2))
def _a_hair(data: Data, objects: list[Entry]) -> None:
    objects[1]["segmentation"] = [[10.0, 10.0, 40.0, 10.01, 10.0, 10.02]]


# --- boxes and areas


@plant("box-xyxy", (1, 2))
def _corners(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)
    objects[1]["bbox"] = [70, 60, 90, 80]


@plant("box-without-area", (1, 2), (1, 3))
def _flat_box(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)
    objects[1]["bbox"] = [70, 60, 20, 0]
    objects[2]["bbox"] = [WIDTH + 10, 5, 20, 20]


@plant("box-not-mask", (1, 2))
def _box_elsewhere(data: Data, objects: list[Entry]) -> None:
    data.polygon(1)  # 5 x 20 of 35 x 20 + ... pixels shared: IoU 100 / 700
    objects[1]["bbox"] = [55, 60, 20, 20]


@plant("box-outside", (1, 2))
def _box_over_the_edge(data: Data, objects: list[Entry]) -> None:
    square = data.polygon(1)
    square[::2] = [x + 38 for x in square[::2]]  # 108 to 128: to the very edge
    objects[1]["bbox"] = [108, 60, 30, 20]


@plant("area-field", (1, 2))
def _area_in_other_units(data: Data, objects: list[Entry]) -> None:
    objects[1]["area"] *= 4


# --- objects together


@plant("duplicate-annotation", (1, 99))
def _object_twice(data: Data, objects: list[Entry]) -> None:
    objects.append({**objects[0], "id": 99})


@plant("two-classes", (1, 99), left=True)
def _both_disc_and_box(data: Data, objects: list[Entry]) -> None:
    objects.append({**objects[0], "id": 99, "category_id": 3 - objects[0]["category_id"]})


@plant("crowd", (1, 2), left=True)
def _group(data: Data, objects: list[Entry]) -> None:
    objects[1]["iscrowd"] = 1


@plant("no-objects", (1, None), left=True)
def _bare_image(data: Data, objects: list[Entry]) -> None:
    objects[:] = [entry for entry in objects if entry["image_id"] != 1]


def _crowded_image(data: Data, objects: list[Entry], category: int, count: int) -> None:
    """Dots of 2 x 2 pixels on a grid, on image 2."""
    for number in range(count):
        y, x = divmod(number, 60)
        dot = [2 * x, 4 * y, 2 * x + 2, 4 * y, 2 * x + 2, 4 * y + 2, 2 * x, 4 * y + 2]
        entry = {"image_id": 2, "category_id": category, "segmentation": [dot]}
        objects.append({**entry, "id": 1000 + number})


@plant("many-objects", (2, None), left=True, also=("small-objects",))
def _crowded(data: Data, objects: list[Entry]) -> None:
    _crowded_image(data, objects, category=1, count=120)


@plant("small-objects", left=True)
def _dots(data: Data, objects: list[Entry]) -> None:
    _crowded_image(data, objects, category=1, count=30)


@plant("refused", (None, None), left=True)
def _lvis_without_lists_of_absent_classes(data: Data, objects: list[Entry]) -> None:
    for category in data.train["categories"]:
        category["frequency"] = "f"


# --- what is found


@pytest.mark.parametrize(
    ("kind", "raw", "orientation"),
    [
        (2, b"left\0", 1),
        (7, b"\x06ab", 1),
        (5, struct.pack("<II", 0, 0), 1),
        (5, struct.pack("<II", 6, 1), 6),
        (12, struct.pack("<d", float("nan")), 1),
        (12, struct.pack("<d", 6.0), 6),
        (4, struct.pack("<I", 2**32 - 1), 1),
        (3, struct.pack("<H", 6), 6),
    ],
    ids=["text", "bytes", "0/0", "6/1", "NaN", "6.0", "large", "6"],
)
def test_an_odd_exif_mark_turns_nothing(
    tmp_path: Path, kind: int, raw: bytes, orientation: int
) -> None:
    """As Pillow, which turns by what equals a number from 2 to 8."""
    count = {2: len(raw), 7: len(raw)}.get(kind, 1)
    value, behind = (raw.ljust(4, b"\0"), b"") if len(raw) < 5 else (struct.pack("<I", 26), raw)
    entry = struct.pack("<HHI", 0x0112, kind, count) + value
    exif = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + behind
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png", exif=exif)
    facts = inspect(tmp_path / "a.png")
    assert isinstance(facts, Facts)
    assert facts.orientation == orientation
    assert facts.size == ((8, 4) if facts.sideways else (4, 8))


def found(report: Report, code: str, split: str) -> Finding:
    (finding,) = (one for one in report.findings if (one.code, one.split) == (code, split))
    return finding


def ids(plants: list[Plant]) -> list[str]:
    return [f"{one.code}: {one.name}" for one in plants]


def test_nothing_is_found_in_clean_data(clean: Path, trains: Trains) -> None:
    report = examine(clean)
    assert report.findings == ()
    assert not report.breaks
    assert report.verdicts == {
        "train": "loads: 6 images, 32 objects, 2 classes",
        "val": "loads: 2 images, 10 objects, 2 classes",
    }
    assert trains(clean)


@pytest.mark.parametrize("one", PLANTS, ids=ids(PLANTS))
def test_planted_defect_is_found_and_repaired(
    one: Plant, data: Data, tmp_path: Path, trains: Trains, state: State
) -> None:
    one.edit(data, data.train["annotations"])
    data.save()
    report = examine(data.root)
    finding = found(report, one.code, one.split)
    assert finding.severity == catalogue()[one.code].severity
    places = tuple((place.image_id, place.annotation_id) for place in finding.places)
    if one.places:
        assert places[: len(one.places)] == one.places
    if one.code not in ("many-objects", "small-objects", "few-objects"):
        assert finding.count == max(1, len(one.places))
    assert {other.code for other in report.findings} == {one.code, *one.also}
    if one.code != "wild-coordinates":  # drawing those may take all memory
        assert report.breaks is not trains(data.root)

    before = state(data.root)
    assert bool(finding.left) == one.left
    if any(other.severity == "breaks" and other.left for other in report.findings):
        with pytest.raises(DatasetError, match="cannot be repaired without you"):
            repair.write(report, tmp_path / "fixed")
        assert not (tmp_path / "fixed").exists()
    else:
        repair.write(report, tmp_path / "fixed")
        again = examine(tmp_path / "fixed")
        assert [other.code for other in again.findings if other.repair] == []
        assert not again.breaks
        assert trains(tmp_path / "fixed")
    assert state(data.root) == before


def test_everything_that_can_be_said_is_planted() -> None:
    of_labels = {code for code in catalogue() if code.startswith("yolo") or "label" in code}
    assert {one.code for one in PLANTS} == set(catalogue()) - of_labels


def test_all_defects_at_once_are_found_at_once(data: Data, tmp_path: Path, trains: Trains) -> None:
    """One after the other on the same annotations: nothing crashes, and nothing breaks the copy."""
    chosen = ["annotation-entry", "rle-broken", "duplicate-annotation", "leak", "unused-class"]
    for one in PLANTS:
        if one.code in chosen:
            one.edit(data, data.train["annotations"])
    data.save()
    report = examine(data.root)
    assert set(chosen) <= {one.code for one in report.findings}
    repair.write(report, tmp_path / "fixed")
    assert trains(tmp_path / "fixed")


UNFIT = ("far away", "wide image", "mask lies on its side")  # to be piled on others


@pytest.mark.parametrize("seed", range(8))
def test_what_is_called_clean_trains(
    seed: int, data: Data, tmp_path: Path, trains: Trains, state: State
) -> None:
    """Any pile of defects: nothing crashes, the verdict is right, and so is a repaired copy."""
    rng = random.Random(seed)
    fit = [one for one in PLANTS if one.name not in UNFIT]
    for one in rng.sample(fit, rng.randint(2, 6)):
        with contextlib.suppress(AttributeError, LookupError, TypeError, OSError):  # gone already
            one.edit(data, data.train["annotations"])
    data.save()
    before = state(data.root)
    report = examine(data.root)
    assert report.breaks is not trains(data.root)
    if any(one.severity == "breaks" and one.left for one in report.findings):
        with pytest.raises(DatasetError, match="cannot be repaired without you"):
            repair.write(report, tmp_path / "fixed")
    else:
        repair.write(report, tmp_path / "fixed")
        again = examine(tmp_path / "fixed")
        assert [one.code for one in again.findings if one.repair or one.severity == "breaks"] == []
        assert trains(tmp_path / "fixed")
    assert state(data.root) == before


def test_count_is_of_all_and_places_are_the_first_few(data: Data) -> None:
    for entry in data.train["annotations"]:
        entry["area"] = 1e6
    data.save()
    finding = found(examine(data.root), "area-field", "train")
    assert finding.count == 32
    assert [place.annotation_id for place in finding.places] == list(range(1, 21))
    assert str(finding.places[0]).startswith("annotation 1, image 1 (000000.png): area 1e+06, ")


def test_summary_counts_what_can_be_used(tmp_path: Path) -> None:
    """Squares of side 4, 4 and 10 on one image and nothing on the other; one is a crowd."""
    root = make_shapes(tmp_path, train=2, val=0, size=(32, 40), classes=("disc", "box"))
    content = json.loads((root / "annotations" / "instances_train.json").read_text("utf-8"))
    squares = [(0, 0, 4, 0), (8, 8, 4, 0), (20, 20, 10, 0), (0, 20, 6, 1)]
    content["annotations"] = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
            "iscrowd": crowd,
        }
        for number, (x, y, side, crowd) in enumerate(squares)
    ]
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content), "utf-8")
    summary, _ = examine(root).summaries
    assert summary.images == 2
    assert summary.objects == 3
    assert summary.classes == (1, 2)
    assert summary.per_image == (1.5, 3)  # of 3 and 0
    # sorted 4, 4, 10: 5 % lie at 4, half at 4, 95 % at 4 + 0.9 * 6
    assert summary.sides == pytest.approx((4, 4, 9.4))
    assert summary.side_shares == pytest.approx((2 / 3, 1 / 3, 0, 0, 0))
    assert summary.sizes == ((32, 40),) * 3
    assert summary.class_counts == {"disc": 3, "box": 0}


# --- what cannot be examined


def test_empty_folder_has_no_split(tmp_path: Path) -> None:
    report = examine(tmp_path)
    assert report.breaks
    assert [(one.code, one.split) for one in report.findings] == [
        ("missing-split", "train"),
        ("no-val", "val"),
    ]
    assert report.summaries == ()


def test_no_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder; give the folder of the dataset"):
        examine(tmp_path / "absent")
    (tmp_path / "file.json").touch()
    with pytest.raises(DatasetError, match="is no folder; give the folder of the dataset"):
        examine(tmp_path / "file.json")


def test_what_may_not_be_read_is_said(data: Data) -> None:
    data.image(0).chmod(0)
    data.file("val").chmod(0)
    if os.access(data.image(0), os.R_OK):
        pytest.skip("root may read everything")
    report = examine(data.root)
    place = found(report, "unreadable-image", "train").places[0]
    assert "may not be read; check its permissions" in place.detail
    assert "Permission denied" in found(report, "broken-file", "val").places[0].detail


def test_folder_that_may_not_be_read_is_said(data: Data) -> None:
    folder = data.root / "train"
    folder.chmod(0)
    try:
        if os.access(folder, os.R_OK):
            pytest.skip("root may read everything")
        finding = found(examine(data.root), "missing-image", "train")
    finally:
        folder.chmod(0o755)
    assert finding.count == 6
    assert finding.places[0].detail == f"{folder} may not be read"


# --- what the repair makes of it

SQUARE = [70.0, 60.0, 90.0, 60.0, 90.0, 80.0, 70.0, 80.0]
REPAIRED_TO_THE_SQUARE = ["flat polygon", "nested points", "list of points", "corners"]
REPAIRED_TO_THE_SQUARE += ["one number too many", "two points", "shares of the image"]
REPAIRED_TO_THE_SQUARE += ["flat box", "box elsewhere"]


def repaired(name: str, data: Data, out: Path) -> Entry:
    """The json of "train" after a repair of what the plant of this name did."""
    (one,) = (one for one in PLANTS if one.name == name)
    one.edit(data, data.train["annotations"])
    data.save()
    repair.write(examine(data.root), out)
    file = out / "annotations" / "instances_train.json"
    content: Entry = json.loads(file.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", REPAIRED_TO_THE_SQUARE)
def test_square_is_a_square_again(name: str, data: Data, tmp_path: Path) -> None:
    objects = repaired(name, data, tmp_path / "fixed")["annotations"]
    (entry,) = (entry for entry in objects if entry["id"] == 2)
    assert len(objects) == 32
    (polygon,) = entry["segmentation"]
    assert polygon == pytest.approx(SQUARE)
    assert entry["bbox"] == pytest.approx([70, 60, 20, 20])
    assert entry["area"] == 400


@pytest.mark.parametrize("name", ["size is swapped", "mask lies on its side"])
def test_swapped_mask_stands_upright_again(
    name: str, data: Data, clean: Path, tmp_path: Path
) -> None:
    def masks(content: Entry) -> dict[int, np.ndarray]:
        objects = content["annotations"]
        return {a["id"]: rasterize(a["segmentation"], HEIGHT, WIDTH) for a in objects}

    file = clean / "annotations" / "instances_train.json"
    before = masks(json.loads(file.read_text(encoding="utf-8")))
    after = masks(repaired(name, data, tmp_path / "fixed"))
    assert after.keys() == before.keys()
    for number, mask in before.items():
        np.testing.assert_array_equal(after[number], mask)
