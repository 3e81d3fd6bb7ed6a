"""Do weights come back as they were saved, and fresh ones from their seed alone?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffinst.config import Config, preset_names
from diffinst.datasets.synthetic import make_shapes
from diffinst.inference.predictor import DiffusionInst
from diffinst.models.network import DiffusionInstNetwork


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_shapes(tmp_path_factory.mktemp("shapes"), train=1, val=0, size=(48, 64))
    return root / "train" / "000000.png"


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_saving_and_loading_changes_nothing(path: Path, tmp_path: Path, evaluate: str) -> None:
    config = Config.from_preset("tiny").updated(
        model={"filters": {"evaluate": evaluate}}, sampler={"steps": 2, "proposals": 11}
    )
    torch.manual_seed(1)
    model = DiffusionInst(DiffusionInstNetwork(config.model).eval(), config)
    folder = model.save_pretrained(tmp_path / "a")
    loaded = DiffusionInst.from_pretrained(folder)
    assert loaded.config == config
    assert loaded.predict(path) == model.predict(path)
    half = DiffusionInst.from_pretrained(model.save_pretrained(tmp_path / "b", torch.float16))
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in "ab"]
    assert sizes[1] < 0.6 * sizes[0]
    assert half.network.fpn.outputs[0].weight.dtype == torch.float32
    again = DiffusionInst.from_pretrained(half.save_pretrained(tmp_path / "c"))
    assert again.predict(path) == half.predict(path)


def test_fresh_weights_follow_their_seed_alone() -> None:
    torch.manual_seed(4)
    state = torch.get_rng_state()
    first, same, other = (DiffusionInst.from_preset("tiny", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    models = (first, same, other)
    weights = [m.network.get_parameter("decoder.time.layers.0.weight") for m in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not first.network.training
    assert (first.device.type, first.class_names) == ("cpu", ("class 0", "class 1", "class 2"))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_network(name: str) -> None:
    config = Config.from_preset(name)
    with torch.device("meta"):  # no memory, no time
        network = DiffusionInstNetwork(config.model)
    assert len(network.decoder.stages) == config.model.decoder.stages
    logits = network.get_parameter("decoder.stages.0.class_logits.weight")
    assert len(logits) == config.model.num_classes
