"""Are stages initialised by name, blind to the order of proposals, and joined by queries only?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffinst.config import DecoderConfig
from diffinst.models.decoder import Decoder, sinusoidal_embedding
from diffinst.models.decoder_stage import DecoderStage
from diffinst.structures import Pyramid

CONFIG = DecoderConfig(
    stages=3, width=16, dynamic_width=4, heads=4, feedforward=32, box_layers=2, roi_size=3
)
FILTER = 9
PRIOR = -math.log(99)


def decoder(classes: int = 3, config: DecoderConfig = CONFIG) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config, classes, FILTER)


def table(dtype: torch.dtype = torch.float32) -> Pyramid:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 16, 16 >> i, 16 >> i, generator=generator) for i in range(4)]
    return Pyramid.of([m.to(dtype) for m in maps])


def boxes(count: int) -> Tensor:
    low = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(1)) * 40
    return torch.cat([low, low + 16], dim=-1)


TIMES = torch.tensor([3, 700])


def test_embedding_by_hand() -> None:
    # width 4: frequencies 1 and 1 / 10,000
    embedded = sinusoidal_embedding(torch.tensor([0, 10]), 4)
    expected = [[0, 0, 1, 1], [math.sin(10), math.sin(1e-3), math.cos(10), math.cos(1e-3)]]
    torch.testing.assert_close(embedded, torch.tensor(expected))


def test_a_time_for_each_proposal_is_the_time_of_all_where_they_agree() -> None:
    model, pyramid, given = decoder().eval(), table(), boxes(5)
    with torch.no_grad():
        one, each = (model(pyramid, given, t) for t in (TIMES, TIMES[:, None].expand(2, 5)))
        for a, b in zip(one, each, strict=True):
            # of two rows and of ten, products are summed in another order on some processors
            torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
            torch.testing.assert_close(a.logits, b.logits, rtol=0, atol=1e-4)
        mixed = TIMES[:, None].repeat(1, 5)
        mixed[0, 1] = 500
        (first, *_) = model(pyramid, given, mixed)
    # in the first stage a time is seen by its own proposal alone
    changed = (first.logits - one[0].logits).abs().amax(-1) > 1e-6
    assert changed.tolist() == [[False, True, False, False, False], [False] * 5]


def check_initialisation(model: Decoder) -> None:
    """Every tensor by its name: priors, zeros, LayerNorms, else spread as its size says."""
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if name.endswith("class_logits.bias"):
            torch.testing.assert_close(values, torch.full_like(values, PRIOR))
        elif "attention" in name and name.endswith("bias"):
            assert not values.any(), name
        elif values.ndim > 1:
            bound = math.sqrt(6 / sum(values.shape))  # Xavier-uniform
            assert values.abs().max() <= bound and values.abs().max() > 0.7 * bound, name
            assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.3), name
        elif "norm" in name or "tower" in name:  # the towers' linear layers have no bias
            assert values.unique().tolist() == [float(name.endswith("weight"))], name
        else:  # PyTorch's own: uniform in +-1 / sqrt(inputs)
            weight = model.get_parameter(name.replace("bias", "weight"))
            assert values.abs().max() <= 1 / math.sqrt(weight.shape[1]), name
            assert len(values.unique()) == len(values), name


@pytest.mark.parametrize("classes", [*range(1, 11), 80])
def test_initialisation_goes_by_name_for_any_number_of_classes(classes: int) -> None:
    model = decoder(classes)
    check_initialisation(model)
    shapes = {n: p.shape for n, p in model.named_parameters()}
    for name, parameter in decoder(81).named_parameters():
        assert ("class_logits" in name) == (parameter.shape != shapes.pop(name)), name
    assert not shapes


def test_deltas_start_at_zero_where_asked_and_only_they_change() -> None:
    plain = dict(decoder().named_parameters())
    zeroed = decoder(config=CONFIG.model_copy(update={"zero_init_deltas": True}))
    for name, parameter in zeroed.named_parameters():
        if ".deltas." in name:
            assert not parameter.any() and plain[name].any()
        else:
            assert torch.equal(parameter, plain[name])
    for output in zeroed(table(), boxes(4), TIMES):
        torch.testing.assert_close(output.boxes, boxes(4))


@torch.no_grad()
def test_outputs_permute_with_the_proposals() -> None:
    model, order = decoder(), torch.tensor([4, 2, 0, 5, 1, 3])
    plain = model(table(), boxes(6), TIMES)
    permuted = model(table(), boxes(6)[:, order], TIMES)
    assert len(plain) == 3
    for a, b in zip(plain, permuted, strict=True):
        for field in ("logits", "boxes", "filters", "queries"):
            expected = getattr(a, field)[:, order]
            torch.testing.assert_close(getattr(b, field), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other() -> None:
    model, start = decoder(), boxes(4)
    plain = model(table(), start, TIMES)[-1]
    start[1] += 10
    moved = model(table(), start, TIMES)[-1]
    torch.testing.assert_close(moved.logits[0], plain.logits[0])
    assert not torch.allclose(moved.logits[1], plain.logits[1])


def test_queries_carry_gradient_between_stages_and_boxes_do_not() -> None:
    model = decoder()
    outputs = model(table(), boxes(4), TIMES)
    first = model.stages[0]
    assert isinstance(first, DecoderStage)
    leaves = [first.interaction.out.weight, first.deltas.weight]
    through_queries, through_boxes = torch.autograd.grad(
        outputs[-1].boxes.sum(), leaves, retain_graph=True, allow_unused=True
    )
    assert through_queries is not None and through_queries.any()
    assert through_boxes is None
    (own,) = torch.autograd.grad(outputs[0].boxes.sum(), [first.deltas.weight])
    assert own.any()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_boxes_in_float32(dtype: torch.dtype) -> None:
    model = decoder()
    exact = model(table(), boxes(6), TIMES)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(table(dtype), boxes(6), TIMES)
    for output in outputs:
        assert output.boxes.dtype == torch.float32
        assert output.boxes.isfinite().all() and output.logits.isfinite().all()
    # one stage only: later ones see boxes that moved
    torch.testing.assert_close(outputs[0].logits.float(), exact[0].logits, rtol=0.05, atol=0.3)


@torch.no_grad()
def test_no_proposals_and_boxes_without_area() -> None:
    model = decoder()
    assert [o.logits.shape for o in model(table(), torch.zeros(2, 0, 4), TIMES)] == [(2, 0, 3)] * 3
    flat = torch.tensor([[5.0, 5, 5, 5], [9, 9, 3, 3], [0, 7, 64, 7]]).expand(2, 3, 4)
    for output in model(table(), flat, TIMES):
        assert output.boxes.isfinite().all() and output.logits.isfinite().all()
