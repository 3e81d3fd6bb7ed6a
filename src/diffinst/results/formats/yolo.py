"""Writes YOLO segmentation: images/, labels/ with a text file for each image, and data.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from diffinst.io.atomic import write_text
from diffinst.results.formats.polygons import joined, parts
from diffinst.results.formats.scene import Scene, place_image

DIGITS = 8  # after the point, of fractions of the sides: enough for sides of 100,000 pixels


class YoloFolder:
    """A dataset: the images beside their labels.

    Args:
        path: The folder; gets images/, labels/ and data.yaml (train and val are images/).
        class_names: Classes are their places, from 0.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.path, self.class_names = path, tuple(class_names)

    def add(self, scene: Scene) -> None:
        """Write the labels of an image, and put it beside."""
        write_file(scene, self.path / "labels" / f"{scene.name}.txt")
        place_image(scene, self.path / "images")

    def finish(self) -> None:
        """Write data.yaml."""
        about = {"train": "images", "val": "images", "names": dict(enumerate(self.class_names))}
        text = yaml.safe_dump(about, allow_unicode=True, sort_keys=False)
        write_text(self.path / "data.yaml", text)


def write_file(scene: Scene, path: Path) -> None:
    """Write one image's labels: a line `class x1 y1 x2 y2 ...` for each object.

    The format knows one line per object: the parts of a mask, and its holes, are joined by bridges
    there and back, which readers that fill the line itself draw, too. Objects without pixels are
    left out, and so are scores.
    """
    height, width = scene.found.image_size
    rows = []
    labels = scene.found.labels.tolist()
    for label, ((y, x), mask) in zip(labels, scene.found.mask_crops.placed(), strict=True):
        lines = [line for part in parts(mask, y, x) for line in part]
        if lines:
            numbers = [n for px, py in joined(lines) for n in (px / width, py / height)]
            rows.append(" ".join([str(label), *(_short(number) for number in numbers)]))
    write_text(path, "".join(f"{row}\n" for row in rows))


def _short(number: float) -> str:
    return f"{number:.{DIGITS}f}".rstrip("0").rstrip(".")
