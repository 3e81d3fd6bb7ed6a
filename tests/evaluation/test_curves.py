"""Do the curves show the numbers, without a display, and what is said without matplotlib?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffinst.evaluation.curves import draw_precision_recall, draw_sweep
from diffinst.evaluation.metrics import Metrics, compute_metrics

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
PANEL = 624  # pixels wide


def metrics(classes: int, annotated: int) -> Metrics:
    """One object of each annotated class, every second one found."""
    box = {"bbox": [5, 5, 20, 20], "area": 400}
    objects = [{"image_id": 1, "category_id": i, **box} for i in range(annotated)]
    found = [{**o, "score": 0.9} for o in objects[::2]]
    names = [{"id": i, "name": f"_$class {i}$ \u6f22"} for i in range(classes)]
    truth = {"images": [{"id": 1}], "annotations": objects, "categories": names}
    return compute_metrics(truth, found, iou_type="bbox")


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("classes", "annotated", "panels"), [(1, 1, 1), (3, 2, 2), (12, 12, 2), (13, 13, 1), (2, 0, 1)]
)
def test_classes_have_curves_where_they_can_be_told_apart(
    classes: int, annotated: int, panels: int, tmp_path: Path
) -> None:
    path = tmp_path / "pr.png"
    draw_precision_recall(metrics(classes, annotated), path, title="model on data")
    image = drawn(path)
    assert image.shape[1] == panels * PANEL
    assert image.std() > 10  # not blank


def test_the_image_follows_the_numbers(tmp_path: Path) -> None:
    good, bad = metrics(1, 1), metrics(1, 0)
    for name, values in (("good", good), ("again", good), ("bad", bad)):
        draw_precision_recall(values, tmp_path / name, title="")
    np.testing.assert_array_equal(drawn(tmp_path / "good"), drawn(tmp_path / "again"))
    assert (drawn(tmp_path / "good") != drawn(tmp_path / "bad")).any()


@pytest.mark.parametrize("ap", [0.5, None])
def test_sweeps_have_two_panels(ap: float | None, tmp_path: Path) -> None:
    rows: list[dict[str, float | None]] = [
        {"steps": s, "proposals": p, "mask/AP": ap, "seconds_per_image": s * p / 1000}
        for s in (4, 1)
        for p in (100, 300)
    ]
    draw_sweep(rows, tmp_path / "sweep.png", title="model on data")
    assert drawn(tmp_path / "sweep.png").shape[1] == 2 * PANEL


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: Any = None  # an import of it fails from now on
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, hidden)
    with pytest.raises(ImportError, match=r"pip install diffinst\[plots\]"):
        draw_precision_recall(metrics(1, 1), tmp_path / "pr.png", title="")
    assert list(tmp_path.iterdir()) == []


def test_the_callers_own_plots_are_left_alone(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    draw_precision_recall(metrics(1, 1), tmp_path / "pr.png", title="")
    assert plt.get_fignums() == before
