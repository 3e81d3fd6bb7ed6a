"""Are YOLO's labels the masks, for readers that count crossings and those that fill lines?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffinst.results.formats.scene import Scene
from diffinst.results.formats.yolo import YoloFolder, write_file


def write(root: Path, *scenes: Scene) -> Path:
    folder = YoloFolder(root, scenes[0].found.class_names)
    for scene in scenes:
        folder.add(scene)
    folder.finish()
    return root


def test_it_is_a_dataset(
    scene: Scene,
    nothing: Scene,
    tmp_path: Path,
    read_back: Callable[[Path], list[list[tuple[str, object]]]],
    same: Callable[[list[tuple[str, object]], Scene], None],
) -> None:
    root = write(tmp_path / "yolo", scene, nothing)
    second, first = read_back(root)  # by name
    same(first, scene)  # parts and holes, too
    assert second == []
    assert (root / "labels" / "none.txt").read_text() == ""
    assert sorted(path.name for path in (root / "images").iterdir()) == ["none.png", "é 1.png"]


def test_supervision_adds_a_row_and_a_column_and_bridges(scene: Scene, tmp_path: Path) -> None:
    """It rounds corners, then fills the line, too."""
    supervision = pytest.importorskip("supervision", "0.20")
    root = write(tmp_path / "yolo", scene)
    read = supervision.DetectionDataset.from_yolo(
        str(root / "images"), str(root / "labels"), str(root / "data.yaml"), force_masks=True
    )
    assert read.classes == list(scene.found.class_names)
    _, _, detections = read[0]
    assert detections.class_id.tolist() == scene.found.labels.tolist()
    masks, expected = np.asarray(detections.mask), scene.found.masks.numpy()
    wider = expected.copy()
    wider[:, 1:] |= expected[:, :-1]
    wider[:, :, 1:] |= wider[:, :, :-1]
    assert np.array_equal(masks[:2], wider[:2])  # no holes, one part
    assert not (expected[[2, 4]] & ~masks[[2, 4]]).any()  # several parts: none is lost


def test_a_line_holds_class_and_fractions(scene: Scene, tmp_path: Path) -> None:
    write_file(replace(scene, found=scene.found[0]), tmp_path / "a.txt")
    line = (tmp_path / "a.txt").read_text()
    assert line.startswith("0 0.01470588 0.02083333 ")  # 0.25 / 17, 0.25 / 12
    assert len(line.split()) == 1 + 2 * 4


def test_objects_without_pixels_are_left_out(without_pixels: Scene, tmp_path: Path) -> None:
    write_file(without_pixels, tmp_path / "a.txt")
    assert [line[0] for line in (tmp_path / "a.txt").read_text().splitlines()] == ["1"]
