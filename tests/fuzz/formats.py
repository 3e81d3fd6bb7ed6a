"""The same two annotated images of 32 x 32 pixels, in each format that is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from mutate import Tree

SQUARE = [4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]
TRIANGLE = [8.0, 24.0, 28.0, 24.0, 18.0, 30.0]
_NAMES = ("000000.png", "000001.png")

Edit = Callable[[str], bytes]
"""What becomes of the text of the one file that is mutated."""


def coco(shapes: Path, root: Path, edit: Edit) -> Path:
    """RLE strings as they are, and polygons."""
    content = _tree(shapes)
    return _beside_images(shapes, root, "instances_train.json", edit(json.dumps(content)))


def lvis(shapes: Path, root: Path, edit: Edit) -> Path:
    content = _tree(shapes)
    for image in content["images"]:
        image |= {"neg_category_ids": [1], "not_exhaustive_category_ids": [2]}
    for category, frequency in zip(content["categories"], "rf", strict=True):
        category |= {"frequency": frequency, "synset": "x.n.01", "def": "x", "image_count": 2}
    return _beside_images(shapes, root, "lvis_v1_train.json", edit(json.dumps(content)))


def yolo(shapes: Path, root: Path, edit: Edit, *, labels: bool = True) -> Path:
    """data.yaml, or the labels of the first image, are what is mutated."""
    shutil.copytree(shapes / "train", root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    yaml = "names: [disc, box]\nnc: 2\npath: .\ntrain: images/train\n"
    rows = "".join(
        f"{label} {' '.join(f'{number / 32:.4f}' for number in polygon)}\n"
        for label, polygon in ((0, SQUARE), (1, TRIANGLE))
    )
    (root / "data.yaml").write_bytes(yaml.encode() if labels else edit(yaml))
    first, second = (root / "labels" / "train" / f"00000{i}.txt" for i in range(2))
    first.write_bytes(edit(rows) if labels else rows.encode())
    second.write_text(rows)
    return first if labels else root / "data.yaml"


def cvat(shapes: Path, root: Path, edit: Edit) -> Path:
    points = ";".join(f"{x},{y}" for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True))
    label = "".join(f"<label><name>{name}</name></label>\n" for name in ("disc", "box"))
    images = "".join(
        f'<image id="{i}" name="{name}" width="32" height="32">\n'
        f'<polygon label="disc" points="{points}" group_id="1" z_order="0"/>\n'
        f'<mask label="box" rle="2, 3, 1" left="1" top="2" width="3" height="2"/>\n'
        f'<ellipse label="box" cx="16.5" cy="12.0" rx="4.0" ry="3.0" rotation="30.0"/>\n'
        f'<box label="box" xtl="1.0" ytl="2.0" xbr="9.0" ybr="9.0"/>\n</image>\n'
        for i, name in enumerate(_NAMES)
    )
    meta = f"<version>1.1</version>\n<meta><task><labels>{label}</labels></task></meta>\n"
    xml = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{images}</annotations>\n'
    return _beside_images(shapes, root, "train.xml", edit(xml))


def labelme(shapes: Path, root: Path, edit: Edit) -> Path:
    shutil.copytree(shapes / "train", root / "train")
    square = [list(point) for point in zip(SQUARE[::2], SQUARE[1::2], strict=True)]
    content: dict[str, object] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": "disc", "points": square, "shape_type": "polygon", "group_id": None},
            {"label": "box", "points": [[16, 16], [20, 16]], "shape_type": "circle"},
            {"label": "box", "points": square[:3:2], "shape_type": "mask", "mask": _PNG},
        ],
        "imagePath": _NAMES[0],
        "imageData": None,
        "imageHeight": 32,
        "imageWidth": 32,
    }
    second = json.dumps({**content, "imagePath": _NAMES[1]})
    (root / "train" / "000001.json").write_text(second)
    first = root / "train" / "000000.json"
    first.write_bytes(edit(json.dumps(content)))
    return first


_PNG = (  # 3 x 3 pixels, all set
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAADCAAAAABzQ+pjAAAAD0lEQVR4nGP8z8DAxADBAAslAQWcNuNiAAAAAElFTkSuQmCC"
)


def _tree(shapes: Path) -> Tree:
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text("utf-8"))
    content["annotations"][0]["segmentation"] = [SQUARE, TRIANGLE]
    content["annotations"][0].update(bbox=[4, 4, 24, 26], area=316)
    return content


def _beside_images(shapes: Path, root: Path, name: str, content: bytes) -> Path:
    shutil.copytree(shapes / "train", root / "train")
    (root / "annotations").mkdir()
    (root / "annotations" / name).write_bytes(content)
    return root / "annotations" / name
