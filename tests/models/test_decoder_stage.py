"""Does one stage mix, modulate and refine as written, for any number of proposals?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffinst import kernels
from diffinst.config import DecoderConfig
from diffinst.kernels import blocks
from diffinst.models.decoder_stage import DecoderStage, DynamicConv, SelfAttention
from diffinst.ops.roi_align import pool
from diffinst.structures import Pyramid, StageOutput

CONFIG = DecoderConfig(width=16, dynamic_width=4, heads=4, feedforward=32, box_layers=1, roi_size=3)
CLASSES, FILTER = 5, 9


def table() -> Pyramid:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 16, 16 >> i, 16 >> i, generator=generator) for i in range(4)]
    return Pyramid.of(maps)


def stage() -> DecoderStage:
    torch.manual_seed(0)
    return DecoderStage(CONFIG, CLASSES, FILTER)


def boxes(count: int) -> Tensor:
    low = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(1)) * 40
    return torch.cat([low, low + 16], dim=-1)


TIME = torch.linspace(-1, 1, 2 * 64).view(2, 64)


def test_dynamic_convolution_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece's parameters fit into a block of memory that is used again."""
    torch.manual_seed(0)
    layer = DynamicConv(CONFIG).eval()
    queries, rois = torch.randn(10, 16), torch.randn(10, 9, 16)
    row = 2 * 16 * 4 * 4  # bytes of a query's parameters
    sizes: list[int] = []
    layer.parameters_of.register_forward_hook(lambda _, x, __: sizes.append(len(x[0])))
    with torch.no_grad():
        whole = layer(queries, rois)
        for block, pieces in ((10 * row, [10]), (4 * row, [4, 3, 3]), (1, [1] * 10)):
            sizes.clear()
            monkeypatch.setattr(blocks, "REUSED", block)
            torch.testing.assert_close(layer(queries, rois), whole, rtol=1e-5, atol=1e-6)
            assert sizes == pieces
        assert layer(queries[:0], rois[:0]).shape == (0, 16)


@pytest.mark.parametrize(("block", "pieces"), [(10, [10]), (4, [4, 3, 3]), (1, [1] * 10)])
def test_the_pieces_are_made_again_for_the_gradient(
    monkeypatch: pytest.MonkeyPatch, block: int, pieces: list[int]
) -> None:
    """Large parameters of dynamic convolutions are not kept; the gradients are those of one go."""
    torch.manual_seed(0)
    layer = DynamicConv(CONFIG)
    queries, rois = torch.randn(10, 16), torch.randn(10, 9, 16)
    inputs = [queries.requires_grad_(), rois.requires_grad_(), *layer.parameters()]
    with kernels.plain():
        wanted = layer(queries, rois)
        expected = torch.autograd.grad(wanted.square().sum(), inputs)
    sizes: list[int] = []
    layer.parameters_of.register_forward_hook(lambda _, x, __: sizes.append(len(x[0])))
    monkeypatch.setattr(blocks, "REUSED", block * 2 * 16 * 4 * 4)
    made = layer(queries, rois)
    assert sizes == pieces
    found = torch.autograd.grad(made.square().sum(), inputs)
    assert sorted(sizes) == sorted(pieces * (1 if block == 10 else 2))
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_self_attention_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours = SelfAttention(16, 4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, 6, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], rtol=1e-4, atol=1e-5)


def test_each_proposal_filters_its_own_features() -> None:
    torch.manual_seed(0)
    dynamic = DynamicConv(CONFIG)
    queries, rois = torch.randn(3, 16), torch.randn(3, 9, 16)
    mixed = dynamic(queries, rois)
    for i in range(3):
        numbers = dynamic.parameters_of(queries[i])
        first, second = numbers[:64].view(16, 4), numbers[64:].view(4, 16)
        hidden = F.layer_norm(rois[i] @ first, (4,)).relu()
        hidden = F.layer_norm(hidden @ second, (16,)).relu()
        expected = F.layer_norm(dynamic.out(hidden.reshape(-1)), (16,)).relu()
        torch.testing.assert_close(mixed[i], expected, rtol=1e-4, atol=1e-5)


def test_shapes_and_dtypes() -> None:
    output = stage()(table(), boxes(6), None, TIME)
    assert output.logits.shape == (2, 6, CLASSES)
    assert output.boxes.shape == (2, 6, 4) and output.boxes.dtype == torch.float32
    assert output.filters.shape == (2, 6, FILTER)
    assert output.queries.shape == (2, 6, 16)


def test_the_first_queries_are_the_mean_roi_features() -> None:
    features = table()
    mean = pool(features, boxes(4), 3, 2).mean(dim=2)
    implicit, given = (stage()(features, boxes(4), q, TIME) for q in (None, mean))
    torch.testing.assert_close(implicit.logits, given.logits)
    other = stage()(features, boxes(4), mean + 1, TIME)
    assert (other.logits - given.logits).abs().max() > 1e-3


def test_time_scales_and_shifts_what_the_towers_see() -> None:
    one = stage()
    nn.init.zeros_(one.time.weight)
    assert one.time.bias is not None
    nn.init.zeros_(one.time.bias)
    plain = one(table(), boxes(4), None, TIME)
    one.time.bias.data[:16] = -1  # times 1 - 1, then plus 2
    one.time.bias.data[16:] = 2
    modulated = one(table(), boxes(4), None, TIME)
    torch.testing.assert_close(modulated.queries, plain.queries)  # handed on without time
    expected = one.class_logits(one.class_tower(torch.full((16,), 2.0)))
    torch.testing.assert_close(modulated.logits, expected.expand(2, 4, CLASSES))


def test_zero_deltas_leave_boxes_as_they_are() -> None:
    one = stage()
    nn.init.zeros_(one.deltas.weight)
    nn.init.zeros_(one.deltas.bias)
    torch.testing.assert_close(one(table(), boxes(4), None, TIME).boxes, boxes(4))


def test_no_proposals_and_boxes_without_area() -> None:
    none = stage()(table(), torch.zeros(2, 0, 4), None, TIME)
    assert none.logits.shape == (2, 0, CLASSES) and none.filters.shape == (2, 0, FILTER)
    flat = torch.tensor([[5.0, 5, 5, 5], [9, 9, 3, 3], [-500, -500, -400, -400], [0, 7, 64, 7]])
    output: StageOutput = stage()(table(), flat.expand(2, 4, 4), None, TIME)
    for values in (output.logits, output.boxes, output.filters, output.queries):
        assert values.isfinite().all()


def test_boxes_get_no_gradient_and_queries_do() -> None:
    start = boxes(4).requires_grad_()
    queries = torch.randn(2, 4, 16, requires_grad=True)
    output = stage()(table(), start, queries, TIME)
    (output.boxes.sum() + output.logits.sum() + output.filters.sum()).backward()
    assert start.grad is None
    assert queries.grad is not None and bool(queries.grad.any())
