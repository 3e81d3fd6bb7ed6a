"""Does everything that learns get its rate, and does a step that went wrong change nothing?"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffinst.config import Config, TrainConfig
from diffinst.datasets.load import load_split
from diffinst.training.loader import TrainBatch, TrainStream
from diffinst.training.module import DiffusionInstModule
from diffinst.training.optimizer import freeze, lr_factor, parameter_groups
from diffinst.training.run_folder import CHECKPOINT
from diffinst.weights import store

Settings = Callable[..., Config]
Runner = Callable[..., Path]
PARTS = ("backbone", "fpn", "mask_branch", "decoder")


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
    frozen = module.network.backbone.get_parameter("body.conv1.0.weight")
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
    plan = configured.get("lr_scheduler")
    assert isinstance(optimizer, torch.optim.AdamW) and isinstance(plan, dict)
    assert plan["interval"] == "step"
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan["scheduler"].step()
    assert rates == pytest.approx([0, 5e-4, 1e-3, 1e-3, 1e-4])
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)


@pytest.mark.parametrize("parts", [("backbone",), ("mask_branch", "fpn"), ("decoder", "backbone")])
def test_frozen_parts_get_no_gradient_and_no_rate(parts: tuple[str, ...]) -> None:
    module = tiny(freeze=parts)
    network = module.network
    still = {id(p) for part in parts for p in network.get_submodule(part).parameters()}
    free = {id(p) for part in PARTS for p in network.get_submodule(part).parameters()} - still
    groups = parameter_groups(network, module.config.train)
    moving = {id(p) for group in groups for p in group["params"]}
    assert not moving & still and moving <= free
    assert moving == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(groups) == (1 if "backbone" in parts else 2)
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {
        part for part in PARTS if part not in parts
    }


def test_statistics_of_frozen_parts_do_not_move() -> None:
    module = tiny(freeze=["mask_branch"])
    for mode in (False, True):  # as evaluation in between does
        module.train(mode)
        assert module.network.decoder.training == mode
        assert not any(m.training for m in module.network.mask_branch.modules())


def test_something_has_to_be_left_to_learn() -> None:
    with pytest.raises(ValueError, match=r"train\.freeze backbone, .*decoder leaves nothing to"):
        tiny(freeze=PARTS)
    module = tiny()
    module.network.requires_grad_(False)
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        freeze(module.network, [])


def test_a_frozen_part_is_saved_as_it_came(
    quick: Settings, trained: Runner, tmp_path: Path
) -> None:
    chosen = quick(freeze=["mask_branch", "backbone"], lr=1e-2)
    before: dict[str, Tensor] = {}
    after = load_file(watched(trained, chosen, tmp_path, first=before) / store.WEIGHTS_FILE)
    for name, value in after.items():
        still = name.startswith(("mask_branch", "backbone"))
        assert not still or torch.equal(value, before[name]), name
    moved = {n.split(".")[0] for n, v in after.items() if not torch.equal(v, before[n])}
    assert moved == {"fpn", "decoder"}


def watched(
    trained: Runner,
    config: Config,
    out: Path,
    *,
    broken: Collection[int] = (),
    changed: dict[int, bool] | None = None,
    first: dict[str, Tensor] | None = None,
    cut: int | None = None,
    resume: bool = False,
) -> Path:
    """A run in which the images of iterations in `broken` are not numbers.

    Args:
        changed: Gets whether anything that is learnt or counted changed in each iteration.
        first: Gets the weights that it starts from.
        cut: The power goes out in this iteration.
    """
    original = DiffusionInstModule.training_step

    def snapshot(module: DiffusionInstModule) -> list[Tensor]:
        rates = module.optimizers().optimizer.state_dict()["state"].values()  # type: ignore[union-attr]
        moments = [value for state in rates for value in state.values()]
        return [t.clone() for t in (*module.state_dict().values(), *moments)]

    def step(module: DiffusionInstModule, batch: TrainBatch, index: int) -> None:
        now = module.iteration
        if now == cut:
            raise PowerCut
        if first is not None and not first:
            first.update(deepcopy(module.network.state_dict()))
        before = snapshot(module) if changed is not None else []
        if now in broken:
            pixels = torch.full_like(batch.images.pixels.float(), torch.nan)
            batch = replace(batch, images=replace(batch.images, pixels=pixels))
        original(module, batch, index)
        assert module.iteration == now + 1
        if changed is not None:
            after = snapshot(module)
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            changed[now] = not same

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionInstModule, "training_step", step)
        return trained(config, out, resume=resume)


class PowerCut(Exception):
    pass


def losses(out: Path) -> dict[int, str]:
    with (out / "metrics.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r.get("loss/total")]
    return {int(r["step"]): r["loss/total"] for r in rows}


def test_a_step_without_a_finite_loss_changes_nothing(
    shapes: Path,
    quick: Settings,
    trained: Runner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = quick(iterations=4).updated(model={"backbone": {"norm": "train"}})
    changed: dict[int, bool] = {}
    with caplog.at_level(logging.WARNING, logger="diffinst"):
        out = watched(trained, chosen, tmp_path, broken=[0, 2], changed=changed)
    assert changed == {0: False, 1: True, 2: False, 3: True}  # running statistics, too
    stream = TrainStream(load_split(shapes, "train"), chosen)
    for i in (0, 2):
        ids = f"{stream[2 * i][1].image_id}, {stream[2 * i + 1][1].image_id}"
        assert (
            f"iteration {i}: loss or gradient not finite, step skipped (1 in a row)" in caplog.text
        )
        assert f"image ids {ids}" in caplog.text
    # the stream went on to its end, and every iteration is in the log
    assert {i: v == "nan" for i, v in losses(out).items()} == {0: True, 1: False, 2: True, 3: False}
    network, _ = store.load(out)
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())


def test_a_run_with_skipped_steps_goes_on_exactly(
    quick: Settings, trained: Runner, tmp_path: Path
) -> None:
    chosen, broken = quick(iterations=5, checkpoint_every=1), [1, 4]
    whole = watched(trained, chosen, tmp_path / "whole", broken=broken)
    out = tmp_path / "cut"
    with pytest.raises(PowerCut):
        watched(trained, chosen, out, broken=broken, cut=3)
    watched(trained, chosen, out, broken=broken, resume=True)
    assert losses(out) == losses(whole) and len(losses(out)) == 5
    weights, same = (load_file(f / store.WEIGHTS_FILE) for f in (whole, out))
    assert all(torch.equal(value, same[name]) for name, value in weights.items())


def test_many_bad_steps_in_a_row_are_an_error_that_says_what_to_do(
    quick: Settings, trained: Runner, tmp_path: Path
) -> None:
    chosen = quick(iterations=5, bad_steps=2, checkpoint_every=1, lr=3e-4)
    wrong = r"2 steps in a row .* iteration 3 with image ids \d+, \d+; lower train\.lr \(0\.0003\)"
    with pytest.raises(FloatingPointError, match=wrong) as caught:
        watched(trained, chosen, tmp_path, broken=[0, 2, 3])  # a good step starts anew
    assert "train.precision 32" in str(caught.value) and "diffinst doctor" in str(caught.value)
    assert (tmp_path / CHECKPOINT).is_file()
    assert not (tmp_path / store.WEIGHTS_FILE).exists()
