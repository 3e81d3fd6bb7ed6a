"""A window holds what is pointed at, and lies inside the image."""

from __future__ import annotations

import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.serve.window import Window


@pytest.mark.parametrize(
    ("xs", "ys", "size"),
    [([5], [5], (600, 2000)), ([1999], [599], (600, 2000)), ([900, 1400], [10, 20], (3000, 3000))],
)
def test_windows_hold_what_is_pointed_at_and_lie_inside(
    xs: list[float], ys: list[float], size: tuple[int, int]
) -> None:
    window = Window.around(xs, ys, size)
    assert window.y >= 0 and window.y + window.height <= size[0]
    assert window.x >= 0 and window.x + window.width <= size[1]
    assert all(window.holds([x, y]) for x in xs for y in ys)
    assert window.height >= min(512, size[0]) and window.width >= max(512, 3 * (max(xs) - min(xs)))
    near = Window.around([x + 3 for x in xs], ys, size)
    assert near.x - window.x in (0, 128)


def test_clicks_side_by_side_share_a_window() -> None:
    windows = {Window.around([1000 + i], [1000], (3000, 3000)) for i in range(64)}
    assert len(windows) == 1 or len(windows) == 2


def test_parts_cover_an_image_once_and_cut_its_objects() -> None:
    size = (700, 1300)
    parts = Window.grid(size)
    assert [(p.y, p.x, p.height, p.width) for p in parts] == [
        (0, 0, 640, 640), (0, 640, 640, 640), (0, 1280, 640, 20),
        (640, 0, 60, 640), (640, 640, 60, 640), (640, 1280, 60, 20),
    ]  # fmt: skip
    dense = torch.zeros(2, *size, dtype=torch.bool)
    dense[0, 600:660, 630:650] = True  # across four parts
    dense[1, 10:20, 30:50] = True
    masks = CroppedMasks.from_dense(dense)
    scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    found = Instances(masks.tight_boxes(), scores, labels, masks, size, ("a",))
    cut = [part.cut(found) for part in parts]
    assert [one.scores.tolist() for one in cut] == [
        pytest.approx([0.9, 0.8]), pytest.approx([0.9]), [],
        pytest.approx([0.9]), pytest.approx([0.9]), [],
    ]  # fmt: skip
    shown = torch.zeros(size, dtype=torch.bool)
    for part, one in zip(parts, cut, strict=True):
        rows, columns = slice(part.y, part.y + part.height), slice(part.x, part.x + part.width)
        shown[rows, columns] = one.masks.any(0)
        assert one.image_size == (part.height, part.width)
    assert torch.equal(shown, dense.any(0))
    assert cut[3].boxes.tolist() == [[630, 0, 640, 20]]
