"""Does roifile read regions that hold the very pixels?"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffinst.results.formats.imagej import write_file
from diffinst.results.formats.scene import Scene

roifile = pytest.importorskip("roifile")


def filled(lines: list[NDArray[np.float32]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """By counting, at each pixel, the upright lines to its left."""
    crossed = np.zeros(shape, int)
    for line in lines:
        corners = np.concatenate([line, line[:1]]).astype(int).tolist()
        for (x0, y0), (x1, y1) in pairwise(corners):
            if x0 == x1:
                crossed[min(y0, y1) : max(y0, y1), x0:] += 1
    return np.asarray(crossed % 2 == 1)


def test_roifile_reads_the_very_pixels(scene: Scene, tmp_path: Path) -> None:
    write_file(scene, tmp_path / "RoiSet.zip")
    regions = roifile.roiread(tmp_path / "RoiSet.zip")
    assert [region.composite for region in regions] == [False, False, True, True, True]
    names = [region.name for region in regions]
    assert names[:2] == ["0001-weiße Zelle", "0002-cell"]
    assert [region.group for region in regions] == [1, 2, 2, 1, 2]
    if sys.version_info >= (3, 11):  # the last roifile for 3.10 cuts them off by the name's place
        assert regions[0].props == "score: 0.9000\n"
    for region, mask in zip(regions, scene.found.masks.numpy(), strict=True):
        lines = region.coordinates(multi=True)
        lines = lines if isinstance(lines, list) else [lines]
        assert np.array_equal(filled(lines, mask.shape), mask)
        rows, columns = np.nonzero(mask)
        bounds = (region.left, region.top, region.right, region.bottom)
        assert bounds == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="roifile for 3.10 cuts properties off")
def test_track_and_doubt_are_properties(scene: Scene, tmp_path: Path) -> None:
    found = replace(scene.found, ids=torch.arange(3, 8), stability=torch.full((5,), 0.125))
    write_file(replace(scene, found=found), tmp_path / "a.zip")
    region, *_ = roifile.roiread(tmp_path / "a.zip")
    assert region.props == "score: 0.9000\ntrack_id: 3\nstability: 0.125\n"


def test_nothing_and_no_pixels(nothing: Scene, without_pixels: Scene, tmp_path: Path) -> None:
    write_file(nothing, tmp_path / "a.zip")
    assert roifile.roiread(tmp_path / "a.zip") == []
    write_file(without_pixels, tmp_path / "b.zip")
    assert [region.name for region in roifile.roiread(tmp_path / "b.zip")] == ["0002-cell"]


def test_a_class_name_is_no_path(without_pixels: Scene, tmp_path: Path) -> None:
    found = replace(without_pixels.found, class_names=("a", "../b/c"))
    write_file(replace(without_pixels, found=found), tmp_path / "a.zip")
    (region,) = roifile.roiread(tmp_path / "a.zip")
    assert region.name == "0002-.._b_c"
