from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffinst.serve.outline import polygons, rings, signed_area


def test_one_pixel_is_a_square_of_its_edges() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    assert rings(mask) == [[(2, 1), (3, 1), (3, 2), (2, 2)]]


def test_a_ring_has_a_hole_and_a_piece_inside_is_a_piece_of_its_own() -> None:
    mask = np.zeros((5, 5), bool)
    mask[[0, 4], :] = mask[:, [0, 4]] = True
    mask[2, 2] = True
    (frame, hole), (dot,) = polygons(mask)
    assert [signed_area(ring) for ring in (frame, hole, dot)] == [25, -9, 1]


def test_pieces_that_touch_at_a_corner_are_apart() -> None:
    assert [len(piece) for piece in polygons(np.eye(2, dtype=bool))] == [1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (3, 3)])
def test_nothing_has_no_outline(shape: tuple[int, int]) -> None:
    assert rings(np.zeros(shape, bool)) == [] == polygons(np.zeros(shape, bool))


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_areas_add_up_and_every_hole_has_its_piece(mask: np.ndarray) -> None:
    found = polygons(mask)
    assert sum(signed_area(ring) for piece in found for ring in piece) == mask.sum()
    assert all(signed_area(piece[0]) > 0 for piece in found)
    assert all(signed_area(hole) < 0 for piece in found for hole in piece[1:])
    # Each pixel of the mask is in as many outlines as holes, plus one: even-odd fills it.
    for piece in found:
        assert sum(signed_area(ring) for ring in piece) > 0
