"""What other tools draw becomes what COCO's would have said; hand-counted."""

import numpy as np
import pytest

from diffinst.datasets.segmentation import placed, rasterize
from diffinst.datasets.shapes import Numbered, Shape, ellipse


@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 2), (2, 4)])
def test_a_mask_keeps_its_pixels_at_its_place(top: int, left: int) -> None:
    mask = np.array([[1, 0], [1, 1]], bool)
    expected = np.zeros((4, 6), bool)
    expected[top : top + 2, left : left + 2] = mask
    np.testing.assert_array_equal(rasterize(placed(mask, top, left, (4, 6)), 4, 6), expected)


def test_a_mask_of_all_or_nothing() -> None:
    assert rasterize(placed(np.ones((4, 6), bool), 0, 0, (4, 6)), 4, 6).all()
    assert not rasterize(placed(np.zeros((2, 2), bool), 1, 1, (4, 6)), 4, 6).any()


def test_an_ellipse_covers_its_area() -> None:
    """pi * 20 * 10 = 628; turned by a quarter it stands upright."""
    lying = rasterize([ellipse(32, 32, 20, 10)], 64, 64)
    upright = rasterize([ellipse(32, 32, 20, 10, 90)], 64, 64)
    assert lying.sum() == pytest.approx(628, rel=0.02)
    assert (upright != lying.T).sum() < 5


def test_polygons_of_a_group_and_a_class_are_one_object() -> None:
    one, two, three = [[0.0] * 6], [[1.0] * 6], [[2.0] * 6]
    numbered = Numbered({"cat": 1})
    numbered.image("a.png", 4, 6)
    shapes = [
        Shape("cat", one, group="7"),
        Shape("dog", two, group="7"),
        Shape("cat", three, group="7"),
        Shape("cat", [], (1, 2, 3, 4)),
        Shape("cat", two),
        Shape("cat", two),
    ]
    found = [entry for _, _, entry in numbered.shapes(shapes)]
    assert [e["segmentation"] for e in found if isinstance(e, dict)] == [
        one + three, two, [], two, two,
    ]  # fmt: skip
    assert [e["category_id"] for e in found if isinstance(e, dict)] == [1, 2, 1, 1, 1]
    assert numbered.classes == {"cat": 1, "dog": 2}
