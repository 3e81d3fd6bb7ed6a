"""Do tables hold what can be counted by hand, and does pandas read them?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffinst.results.formats.measurements import COLUMNS, CsvFile, ParquetFile, measured
from diffinst.results.formats.scene import Scene

pandas = pytest.importorskip("pandas")
pytest.importorskip("skimage")


def test_a_rectangle(scene: Scene) -> None:
    row = list(measured(replace(scene, mpp=0.5)))[1]  # 3 rows, 4 columns
    assert tuple(row) == COLUMNS
    assert (row["image"], row["object"], row["class_name"]) == ("é 1.png", 2, "cell")
    assert [row[name] for name in ("x0", "y0", "x1", "y1")] == [13, 9, 17, 12]
    assert (row["area"], row["area_um2"]) == (12, 3)
    assert (row["perimeter"], row["perimeter_um"]) == (10, 5)  # between the centres of pixels
    # The centres of n pixels in a row have the second moment (n^2 - 1) / 12.
    assert row["major_axis"] == pytest.approx(4 * (15 / 12) ** 0.5)
    assert row["minor_axis"] == pytest.approx(4 * (8 / 12) ** 0.5)
    assert row["eccentricity"] == pytest.approx((1 - 8 / 15) ** 0.5)


def test_brightness_is_that_of_the_pixels(scene: Scene, masks: NDArray[np.bool_]) -> None:
    image = scene.found.image
    assert image is not None
    for given in (scene.found, replace(scene.found, image=None)):  # then by its file
        row = list(measured(replace(scene, found=given)))[3]
        inside = image[masks[3]]
        assert row["mean_red"] == pytest.approx(inside[:, 0].mean())
        assert row["max_blue"] == inside[:, 2].max()
        assert row["area_um2"] is None and row["microns_per_pixel"] is None
    (row, *_) = measured(replace(scene, found=replace(scene.found, image=None, path=None)))
    assert row["mean_red"] is None and row["area"] == 1


def test_of_no_pixels_only_the_area_is_known(without_pixels: Scene) -> None:
    first, second = measured(replace(without_pixels, mpp=2.0))
    assert (first["area"], first["area_um2"], first["perimeter"]) == (0, 0, None)
    assert (second["area"], second["area_um2"]) == (1, 4)


@pytest.mark.parametrize("noted", [False, True])
def test_pandas_reads_both_files(scene: Scene, nothing: Scene, tmp_path: Path, noted: bool) -> None:
    pytest.importorskip("pyarrow")
    if noted:
        doubt = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
        found = replace(scene.found, ids=torch.arange(3, 8), stability=doubt, score_spread=doubt)
        scene = replace(scene, found=found)
        rows = [(r["track_id"], r["stability"], r["mask_agreement"]) for r in measured(scene)]
        assert rows[:2] == [(3, 0.0, None), (4, 0.25, None)]
    expected = pandas.DataFrame(list(measured(scene)), columns=COLUMNS)
    for file, read in (
        (CsvFile(tmp_path / "a.csv"), pandas.read_csv),
        (ParquetFile(tmp_path / "a.parquet"), pandas.read_parquet),
    ):
        for one in (nothing, scene):
            file.add(one)
        file.finish()
        table = read(file.path)
        assert list(table.columns) == list(COLUMNS)
        pandas.testing.assert_frame_equal(table, expected.astype(table.dtypes))


def test_without_objects_there_are_the_columns(nothing: Scene, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for file, read in (
        (CsvFile(tmp_path / "a.csv"), pandas.read_csv),
        (ParquetFile(tmp_path / "a.parquet"), pandas.read_parquet),
    ):
        file.add(nothing)
        file.finish()
        assert read(file.path).empty and list(read(file.path).columns) == list(COLUMNS)
