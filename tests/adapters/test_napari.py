"""Does napari find the plugin, and does a labels layer come out of an image layer?"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diffinst import DiffusionInst
from diffinst.adapters.napari import segment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def layers() -> ModuleType:
    found: ModuleType = pytest.importorskip("napari.layers", reason="napari is not installed")
    return found


@pytest.fixture(scope="module")
def model(tiny: DiffusionInst, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_pretrained(tmp_path_factory.mktemp("models") / "tiny"))


def test_napari_finds_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npe2 = pytest.importorskip("npe2", reason="npe2 is not installed")
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ((name, value),) = project["entry-points"]["napari.manifest"].items()
    info = tmp_path / "diffinst-0.dist-info"  # as an installation of this checkout would have it
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diffinst\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[napari.manifest]\n{name} = {value}\n")
    (info / "RECORD").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    manifest = npe2.PluginManifest.from_distribution("diffinst")
    manifest.validate_imports()
    (command,) = manifest.contributions.commands
    (widget,) = manifest.contributions.widgets
    assert command.python_name == "diffinst.adapters.napari:segment"
    assert widget.command == command.id and widget.autogenerate


def ramp(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape).astype(np.uint8)


def test_a_plane_becomes_labels(layers: ModuleType, tiny: DiffusionInst, model: str) -> None:
    image = layers.Image(ramp(48, 64, 3), name="cells", scale=(0.5, 0.5), translate=(3, 4))
    data, keywords, kind = segment(image, model=model, steps=1, threshold=0.01, seed=3)
    found = tiny.predict(image.data, steps=1, threshold=0.01, seed=3)
    assert kind == "labels" and len(found) and (data == found.to_label_map()).all()
    layer = layers.Labels(data, **keywords)
    assert layer.name == "cells objects"
    assert np.allclose(layer.data_to_world((7, 9)), image.data_to_world((7, 9)))


def test_a_stack_is_taken_plane_by_plane(
    layers: ModuleType, tiny: DiffusionInst, model: str
) -> None:
    stack = np.stack([ramp(40, 48), ramp(40, 48)[::-1]])
    data, keywords, _ = segment(layers.Image(stack), model=model, steps=1, threshold=0.01)
    first, second = (tiny.predict(plane, steps=1, threshold=0.01, seed=0) for plane in stack)
    assert data.shape == stack.shape and layers.Labels(data, **keywords).ndim == 3
    assert (data[0] == first.to_label_map()).all()
    assert ((data[1] > 0) == (second.to_label_map() > 0)).all()
    assert data[1][data[1] > 0].min() > data[0].max()


def rectangles(*plane: float) -> list[np.ndarray]:
    """Many boxes of 20 x 24: untrained weights leave some without an answer."""
    return [
        np.array([[*plane, y + v, x + u] for v, u in ((0, 0), (0, 24), (20, 24), (20, 0))])
        for y in range(0, 20, 4)
        for x in range(0, 24, 6)
    ]


def test_boxes_and_clicks_are_prompts(layers: ModuleType, tiny: DiffusionInst, model: str) -> None:
    image = layers.Image(ramp(48, 64), scale=(2, 2))
    drawn = [2 * corners - 1 for corners in rectangles()]  # in the world; edges of pixels
    clicks = layers.Points([[30, 40]], scale=(2, 2))
    data, _, _ = segment(image, layers.Shapes(drawn, shape_type="rectangle"), clicks, model)
    boxes = [[*corners[0][::-1], *corners[2][::-1]] for corners in rectangles()]
    asked = tiny.encode(image.data).prompt(boxes, [[40.5, 30.5]], seed=0)
    assert (data == asked[asked.scores > 0].to_label_map()).all() and data.max() > 0


def test_prompts_name_their_plane(layers: ModuleType, model: str) -> None:
    image = layers.Image(np.stack([ramp(48, 64)] * 3))
    boxes = layers.Shapes(
        [box - [0, 0.5, 0.5] for box in rectangles(1)], shape_type="rectangle"
    )  # in napari a pixel's middle is a whole number
    data, _, _ = segment(image, boxes, layers.Points([[1, 30, 40]]), model)
    assert data[1].any() and not data[[0, 2]].any()
    with pytest.raises(ValueError, match=r"has 2 axes, .* has 3"):
        segment(image, clicks=layers.Points([[20, 20]]), model=model)
    for plane in (-1, 3):
        with pytest.raises(ValueError, match=f"on plane {plane}, but .* has 3 planes"):
            segment(image, clicks=layers.Points([[plane, 20, 20]]), model=model)
    with pytest.raises(ValueError, match="are empty"):
        segment(image, clicks=layers.Points(ndim=3), model=model)


def test_napari_makes_a_widget_of_the_arguments(layers: ModuleType) -> None:
    signature = pytest.importorskip("magicgui.signature")
    options = signature.magic_signature(segment).parameters
    assert options["image"].annotation is not None
    assert [options[name].default for name in ("model", "steps")] == ["nano-nuclei", 0]
