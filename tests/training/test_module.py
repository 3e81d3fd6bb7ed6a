"""Are the learning rates those of the recipe, and does everything that learns get one?"""

from __future__ import annotations

import pytest
import torch

from diffinst.config import Config, TrainConfig
from diffinst.training.module import DiffusionInstModule, lr_factor, parameter_groups


def test_steps_by_hand() -> None:
    train = TrainConfig(iterations=100, warmup=10, warmup_factor=0.01, milestones=(50, 80))
    factors = {0: 0.01, 5: 0.505, 10: 1, 49: 1, 50: 0.1, 79: 0.1, 80: 0.01, 99: 0.01}
    assert {i: lr_factor(i, train) for i in factors} == pytest.approx(factors)


def test_cosine_by_hand() -> None:
    train = TrainConfig(iterations=100, warmup=0, schedule="cosine", milestones=(50,))
    factors = {0: 1, 25: (1 + 0.5**0.5) / 2, 50: 0.5, 100: 0, 120: 0}
    assert {i: lr_factor(i, train) for i in factors} == pytest.approx(factors, abs=1e-12)
    warming = train.model_copy(update={"warmup": 50, "warmup_factor": 0.0})
    assert lr_factor(25, warming) == pytest.approx(0.5 * (1 + 0.5**0.5) / 2)


def tiny(**train: object) -> DiffusionInstModule:
    config = Config.from_preset("tiny").updated(
        model={"backbone": {"freeze_levels": 1}}, train={"lr": 1e-3, **train}
    )
    return DiffusionInstModule(config, pretrained=False)


def test_the_backbone_has_its_own_rate_and_frozen_weights_have_none() -> None:
    module = tiny(backbone_lr_factor=0.1)
    rest, backbone = parameter_groups(module.network, module.config.train)
    assert (rest["lr"], backbone["lr"]) == (1e-3, pytest.approx(1e-4))
    ids = [id(p) for group in (rest, backbone) for p in group["params"]]
    learning = [p for p in module.network.parameters() if p.requires_grad]
    assert sorted(ids) == sorted(id(p) for p in learning)  # each once
    own = {id(p) for p in module.network.backbone.parameters()}
    assert {id(p) for p in backbone["params"]} <= own
    assert not own & {id(p) for p in rest["params"]}
    frozen = module.network.backbone.body.conv1[0].weight
    assert not frozen.requires_grad and id(frozen) not in ids


def test_a_backbone_that_is_frozen_has_no_group() -> None:
    module = tiny()
    module.network.backbone.requires_grad_(False)
    assert len(parameter_groups(module.network, module.config.train)) == 1


def test_the_optimiser_follows_the_schedule() -> None:
    module = tiny(
        warmup=2, warmup_factor=0.0, milestones=[4], schedule="multistep", weight_decay=0.3
    )
    configured = module.configure_optimizers()
    assert isinstance(configured, dict)
    optimizer = configured["optimizer"]
    plan = configured["lr_scheduler"]
    assert isinstance(optimizer, torch.optim.AdamW) and isinstance(plan, dict)
    assert plan["interval"] == "step"
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan["scheduler"].step()
    assert rates == pytest.approx([0, 5e-4, 1e-3, 1e-3, 1e-4])
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)
