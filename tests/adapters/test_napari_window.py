"""Does the plugin answer to its button in napari's own window? Needs napari with Qt."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from diffinst import DiffusionInst

if TYPE_CHECKING:
    import napari

MANIFEST = Path(__file__).resolve().parents[2] / "src" / "diffinst" / "napari.yaml"
pytestmark = pytest.mark.slow


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[napari.Viewer]:
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "settings.yaml"))  # not the person's own
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    napari = pytest.importorskip("napari", reason="napari is not installed")
    pytest.importorskip("qtpy.QtWidgets", reason="no Qt")
    npe2 = pytest.importorskip("npe2")
    viewer = napari.Viewer(show=False)
    plugins = npe2.PluginManager.instance()
    if "diffinst" not in [manifest.name for manifest in plugins.iter_manifests()]:
        plugins.register(npe2.PluginManifest.from_file(MANIFEST))
    yield viewer
    viewer.close()


def test_its_button_adds_labels(viewer: napari.Viewer, tiny: DiffusionInst, tmp_path: Path) -> None:
    pixels = np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    viewer.add_image(pixels, name="cells", scale=(0.5, 0.5))
    _, widget = viewer.window.add_plugin_dock_widget("diffinst", "Find every object")
    widget.model.value = str(tiny.save_pretrained(tmp_path / "tiny"))
    widget.steps.value, widget.threshold.value, widget.seed.value = 1, 0.01, 3
    widget.call_button.native.click()
    found = tiny.predict(pixels, steps=1, threshold=0.01, seed=3)
    labels = viewer.layers["cells objects"]
    assert len(found) and (labels.data == found.to_label_map()).all()
    assert np.allclose(labels.scale, (0.5, 0.5))

    boxes = viewer.add_shapes(name="boxes", ndim=2, scale=(0.5, 0.5))
    starts = [(y, x) for y in range(0, 20, 4) for x in range(0, 24, 6)]
    for y, x in starts:  # untrained weights leave some without an answer
        boxes.add_rectangles([[y - 0.5, x - 0.5], [y + 19.5, x + 23.5]])
    clicks = viewer.add_points([[30, 40]], name="clicks", scale=(0.5, 0.5))
    assert {boxes, clicks} <= {*widget.boxes.choices, *widget.clicks.choices}
    widget.boxes.value, widget.clicks.value = boxes, clicks
    widget.call_button.native.click()
    asked = tiny.encode(pixels).prompt(
        [[x, y, x + 24, y + 20] for y, x in starts], [[40.5, 30.5]], seed=3
    )
    wanted = asked[asked.scores > 0].to_label_map()
    assert wanted.any() and (viewer.layers["cells prompted"].data == wanted).all()
    assert (labels.data == found.to_label_map()).all()
    assert len(viewer.layers) == 5
