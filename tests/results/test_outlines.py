"""Do outlines, filled again, give the very pixels they came from?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from diffinst.results.outlines import Ring, polygons

Mask = NDArray[np.bool_]


def mask(*rows: str) -> Mask:
    return np.array([[c == "#" for c in row] for row in rows])


def filled(parts: list[list[Ring]], shape: tuple[int, int]) -> Mask:
    """By counting, at each pixel, the upright lines to its left."""
    crossed = np.zeros(shape, int)
    for part in parts:
        for ring in part:
            for (x0, y0), (x1, y1) in pairwise(ring):
                if x0 == x1:
                    crossed[min(y0, y1) : max(y0, y1), x0:] += 1
    return np.asarray(crossed % 2 == 1)


def area(ring: Ring) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2


def test_a_rectangle_has_four_corners_where_it_lies() -> None:
    ring = [(10, 20), (12, 20), (12, 21), (10, 21), (10, 20)]
    assert polygons(mask("##"), y=20, x=10) == [[ring]]


def test_a_hole_is_a_ring_of_the_other_direction() -> None:
    ((outer, hole),) = polygons(mask("###", "#.#", "###"))
    assert (area(outer), area(hole)) == (9, -1)


def test_pixels_that_meet_at_a_corner_are_two_parts() -> None:
    assert len(polygons(mask("#.", ".#"))) == 2


def test_an_island_in_a_hole_is_a_part_with_its_own_hole() -> None:
    parts = polygons(
        mask("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######")
    )
    assert sorted(len(part) for part in parts) == [2, 2]
    assert sorted(area(part[0]) for part in parts) == [9, 49]
    assert {area(part[0]): area(part[1]) for part in parts} == {49: -25, 9: -1}


@given(arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_any_mask_comes_back(given_mask: Mask) -> None:
    parts = polygons(given_mask)
    assert np.array_equal(filled(parts, given_mask.shape), given_mask)
    for part in parts:
        assert area(part[0]) > 0 and all(area(hole) < 0 for hole in part[1:])
        assert all(ring[0] == ring[-1] for ring in part)


@pytest.mark.parametrize("shape", [(0, 0), (3, 3)])
def test_nothing_has_no_outline(shape: tuple[int, int]) -> None:
    assert polygons(np.zeros(shape, bool)) == []
