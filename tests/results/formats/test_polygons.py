"""Do polygons give the very same pixels in each of the libraries that fill them?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffinst.datasets.segmentation import rasterize
from diffinst.results.formats.polygons import Line, joined, parts

Mask = NDArray[np.bool_]
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def mask(*rows: str) -> Mask:
    return np.array([[c == "#" for c in row] for row in rows])


def flat(line: Line) -> list[float]:
    return [number for point in line for number in point]


def without_holes(found: Mask) -> list[Line]:
    return [part[0] for part in parts(found)]


def by_pillow(lines: list[Line], shape: tuple[int, int]) -> Mask:
    image = Image.new("L", shape[::-1])
    for line in lines:
        ImageDraw.Draw(image).polygon(line, outline=1, fill=1)
    return np.asarray(image) > 0


def by_opencv(lines: list[Line], shape: tuple[int, int]) -> Mask:
    cv2 = pytest.importorskip("cv2")
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.array(line).astype(np.int32) for line in lines], 1)
    return np.asarray(canvas > 0)


def test_a_line_lies_inside_the_edge() -> None:
    assert parts(mask(".#"), y=5, x=2) == [
        [[(3.25, 5.25), (3.75, 5.25), (3.75, 5.75), (3.25, 5.75)]]
    ]
    assert parts(np.zeros((3, 3), bool)) == []


@given(MASKS)
def test_one_line_of_all_parts_and_holes_is_the_mask_for_pycocotools(found: Mask) -> None:
    lines = [line for part in parts(found) for line in part]
    drawn = rasterize([flat(joined(lines))] if lines else [], *found.shape)
    assert np.array_equal(drawn, found)


@given(MASKS)
def test_without_holes_the_mask_is_the_same_for_all_libraries(found: Mask) -> None:
    lines = without_holes(found)
    filled = rasterize([flat(line) for line in lines], *found.shape)  # holes filled
    assert not (found & ~filled).any()
    assert np.array_equal(by_pillow(lines, filled.shape), filled)
    if all(len(part) == 1 for part in parts(found)):
        assert np.array_equal(filled, found)


@given(MASKS)
def test_a_part_with_its_holes_is_the_same_for_opencv(found: Mask) -> None:
    drawn = np.zeros_like(found)
    for part in parts(found):
        drawn |= by_opencv(part, found.shape)
    assert np.array_equal(drawn, found)


def test_a_bridge_leads_there_and_back() -> None:
    found = mask("#.#")
    line = joined([line for part in parts(found) for line in part])
    assert len(line) == 4 + 4 + 2  # both corners of the bridge stand twice
    assert np.array_equal(rasterize([flat(line)], 1, 3), found)
    assert by_opencv([line], (1, 3)).all()  # draws the bridge
