"""Does LabelMe, by our reader and by the way it draws, find the very masks?"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from diffinst.results.formats.labelme import write_file, write_with_image
from diffinst.results.formats.scene import Scene


def test_it_is_a_dataset(
    scene: Scene,
    nothing: Scene,
    tmp_path: Path,
    read_back: Callable[[Path], list[list[tuple[str, object]]]],
    same: Callable[[list[tuple[str, object]], Scene], None],
) -> None:
    root = tmp_path / "labelme"
    for one in (scene, nothing):
        write_with_image(one, root / f"{one.name}.json")
    second, first = read_back(root)  # by name
    same(first, scene)
    assert second == []


def test_drawn_as_labelme_draws_the_masks_are_the_same(scene: Scene, tmp_path: Path) -> None:
    write_file(scene, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert (content["imagePath"], content["imageHeight"]) == ("é 1.png", 12)
    drawn = []
    for shape in content["shapes"]:
        canvas = Image.new("L", (17, 12))
        if shape["shape_type"] == "mask":  # a PNG from the first to the last pixel, both included
            (x0, y0), (x1, y1) = shape["points"]
            png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            assert png.size == (x1 - x0 + 1, y1 - y0 + 1)
            canvas.paste(png, (int(x0), int(y0)))
        else:
            points = [tuple(point) for point in shape["points"]]
            ImageDraw.Draw(canvas).polygon(points, outline=1, fill=1)
        drawn.append((shape["group_id"], np.asarray(canvas) > 0))
    assert [group for group, _ in drawn] == [None, None, 3, 3, None, 5, 5, 5]
    whole = [drawn[0], drawn[1], drawn[4]]
    expected = scene.found.masks.numpy()
    for (_, mask), i in zip(whole, (0, 1, 3), strict=True):
        assert np.array_equal(mask, expected[i])
    assert np.array_equal(drawn[2][1] | drawn[3][1], expected[2])


def test_objects_without_pixels_are_left_out(without_pixels: Scene, tmp_path: Path) -> None:
    write_file(without_pixels, tmp_path / "a.json")
    shapes = json.loads((tmp_path / "a.json").read_text("utf-8"))["shapes"]
    assert [shape["label"] for shape in shapes] == ["cell"]
