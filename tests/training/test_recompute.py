"""Does computing activations twice change anything but the memory that they take?"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from diffinst.config import BackboneConfig, Config
from diffinst.models.backbone import Backbone
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.recompute import backbone_parts, recompute_activations
from diffinst.training.step import TrainingStep

SIDE = 64


def networks(**backbone: object) -> tuple[DiffusionInstNetwork, DiffusionInstNetwork]:
    """The same weights twice, the second of which recomputes; blocks are skipped at random."""
    config = Config.from_preset("tiny").updated(model={"backbone": {"drop_path": 0.3, **backbone}})
    torch.manual_seed(0)
    plain = DiffusionInstNetwork(config.model)
    twice = deepcopy(plain)
    recompute_activations(twice)
    return plain.train(), twice.train()


def step_of(network: DiffusionInstNetwork) -> tuple[Tensor, int]:
    """Loss of one step after its backward pass, and the bytes that were kept for it."""
    rng = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=rng) * 255
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 4:40, 4:30] = masks[1, 10:60, 20:60] = True
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 60]])
    targets = [Targets(boxes, torch.tensor([0, 2]), masks), Targets(boxes[:0], *EMPTY)]
    step = TrainingStep(network, Criterion(Config().criterion), proposals=8)
    draws = step.draw(targets, rng)
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(2)  # which blocks are skipped
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step(ImageBatch(pixels, ((SIDE, SIDE),) * 2), targets, draws).losses["loss"]
    loss.backward()
    return loss.detach(), kept


EMPTY = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, SIDE, SIDE, dtype=torch.bool))


def gradients(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("freeze_levels", [0, 2])
def test_loss_gradients_and_statistics_are_the_same(freeze_levels: int) -> None:
    plain, twice = networks(freeze_levels=freeze_levels)
    before = {name: value.clone() for name, value in plain.named_buffers()}
    (expected, _), (loss, _) = step_of(plain), step_of(twice)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    assert gradients(plain).keys() == gradients(twice).keys()
    torch.testing.assert_close(gradients(twice), gradients(plain), rtol=1e-6, atol=1e-6)
    counted, same = dict(plain.named_buffers()), dict(twice.named_buffers())
    assert any(not torch.equal(before[n], counted[n]) for n in before)  # of the mask branch
    torch.testing.assert_close(same, counted, rtol=0, atol=0)


def test_the_weights_keep_their_names() -> None:
    plain, twice = networks()
    assert list(plain.state_dict()) == list(twice.state_dict())


def test_less_is_kept_in_training_and_the_plain_way_is_gone_otherwise() -> None:
    plain, twice = networks()
    (_, usual), (_, less) = step_of(plain), step_of(twice)
    assert less < 0.5 * usual
    plain.eval()
    twice.eval()
    assert step_of(plain) == step_of(twice)


def test_swin_computes_the_same_twice() -> None:
    plain, twice = (n.backbone for n in networks(name="swin_tiny_patch4_window7_224"))
    pixels = torch.rand(1, 3, 32, 32)
    for network in (plain, twice):
        torch.manual_seed(1)
        torch.stack([m.square().sum() for m in network(pixels)]).sum().backward()
    found, expected = ([p.grad for p in n.parameters()] for n in (twice, plain))
    assert all(g is not None and g.any() for g in expected[-8:])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["resnet50", "swin_base_patch4_window12_384", "convnext_tiny", "mobilenetv2_100"],
)
def test_nearly_all_of_a_backbone_is_found(name: str) -> None:
    with torch.device("meta"):
        body = Backbone(BackboneConfig(name=name, freeze_levels=0)).body
    parts = backbone_parts(body)
    inside = [id(p) for part in parts for p in part.parameters()]
    assert len(inside) == len(set(inside))  # nothing is computed three times
    sizes = {id(p): p.numel() for p in body.parameters()}
    assert sum(sizes[i] for i in inside) > 0.95 * sum(sizes.values())
    assert len(parts) >= 4
