"""Do `diffinst convert` and `diffinst info` say what a model is, and make files that load?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffinst.config import Config, preset_names
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import store

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_info_knows_presets(diffinst: Run, name: str) -> None:
    assert name in preset_names()
    code, text, _ = diffinst("info", name)
    assert code == 0 and f"preset {name}, fresh weights" in text
    assert len(text.splitlines()) <= 15
    code, full, _ = diffinst("info", name, "--full")
    assert code == 0 and "time_power" in full and "time_power" not in text


def official_copy(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    """The network under official names; how is told where conversion itself is tested."""
    path = Path(__file__).parents[1] / "weights" / "test_convert.py"
    spec = importlib.util.spec_from_file_location("official_names", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy: dict[str, Tensor] = module.official_copy(network)
    return copy


def test_convert_then_info(diffinst: Run, tmp_path: Path) -> None:
    small = Config().updated(
        model={
            "num_classes": 4,
            "backbone": {"name": "resnet18"},
            "mask_branch": {"width": 16, "depth": 1},
            "decoder": {"stages": 1, "width": 32, "dynamic_width": 8, "feedforward": 32},
        }
    )
    network = DiffusionInstNetwork(small.model)
    torch.save({"model": official_copy(network)}, tmp_path / "model_final.pth")
    code, _, err = diffinst("predict", tmp_path, "--model", tmp_path / "model_final.pth")
    assert code == 1 and "diffinst convert" in err
    out = tmp_path / "converted"
    code, _, err = diffinst("convert", tmp_path / "model_final.pth", "--out", out)
    assert code == 0 and f"next: diffinst info {out}" in err
    state = store.load(out)[0].state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    code, text, _ = diffinst("info", out)
    assert code == 0 and "classes     4: class 0, class 1" in text and "resnet18" in text


def test_convert_turns_a_backbone_into_a_file_and_says_how_to_use_it(
    diffinst: Run, tmp_path: Path
) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    code, _, err = diffinst("convert", tmp_path / "r18.pth", "--out", tmp_path / "out")
    assert code == 0
    path = tmp_path / "out" / "backbone.safetensors"
    assert f"--model.backbone.name resnet18 --model.backbone.weights-file {path}" in err
    assert path.is_file()
