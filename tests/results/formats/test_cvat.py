"""Is the XML what our reader of CVAT's takes for the very masks?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from diffinst.results.formats.cvat import CvatFile
from diffinst.results.formats.scene import Scene, place_image


def write(path: Path, *scenes: Scene) -> Path:
    file = CvatFile(path, scenes[0].found.class_names)
    for scene in scenes:
        file.add(scene)
    file.finish()
    return path


def test_it_is_a_dataset(
    scene: Scene,
    nothing: Scene,
    tmp_path: Path,
    read_back: Callable[[Path], list[list[tuple[str, object]]]],
    same: Callable[[list[tuple[str, object]], Scene], None],
) -> None:
    root = tmp_path / "cvat"
    for one in (scene, nothing):
        place_image(one, root / "images")
    write(root / "train.xml", scene, nothing)
    first, second = read_back(root)
    same(first, scene)
    assert second == []


def test_only_masks_with_holes_are_no_polygons(scene: Scene, tmp_path: Path) -> None:
    image = ElementTree.parse(write(tmp_path / "a.xml", scene)).find("image")
    assert image is not None and image.get("name") == "é 1.png"
    shapes = [(shape.tag, shape.get("group_id")) for shape in image]
    parts = [("polygon", "5")] * 3
    holes = [("mask", None)]
    assert shapes == [("polygon", None)] * 2 + [("polygon", "3")] * 2 + holes + parts


def test_names_that_xml_cannot_hold(scene: Scene, without_pixels: Scene, tmp_path: Path) -> None:
    odd = Scene(without_pixels.found, "odd", 'a\udcff\x01<&".png')
    image = ElementTree.parse(write(tmp_path / "a.xml", odd)).find("image")
    assert image is not None and image.get("name") == 'a__<&".png'
    assert [shape.get("label") for shape in image] == ["cell"]  # that without pixels is left out
