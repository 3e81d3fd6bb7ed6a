"""Does tifffile read the label map, and how large a pixel is?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffinst.io.microns import microns_per_pixel
from diffinst.results.formats.labels import write_file
from diffinst.results.formats.scene import Scene

tifffile = pytest.importorskip("tifffile")


def test_tifffile_reads_the_label_map(scene: Scene, nothing: Scene, tmp_path: Path) -> None:
    for one in (scene, nothing):
        write_file(one, tmp_path / "a.tif")
        read = tifffile.imread(tmp_path / "a.tif")
        assert read.dtype == np.uint16
        assert np.array_equal(read, one.found.to_label_map())
    assert microns_per_pixel(tmp_path / "a.tif") is None


def test_more_than_16_bits_count_are_32(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = scene.found[[0] * 65_536]
    write_file(replace(scene, found=many), tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint32


def test_the_size_of_a_pixel_is_written(scene: Scene, tmp_path: Path) -> None:
    write_file(replace(scene, mpp=0.25), tmp_path / "a.tif")
    assert microns_per_pixel(tmp_path / "a.tif") == pytest.approx(0.25)
