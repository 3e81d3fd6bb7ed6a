"""Does every object get its queries, no query two objects, and does matching always end?"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffinst.config import MatcherConfig
from diffinst.training.matcher import FREE, class_cost, dynamic_k_match, matching_cost, with_held

CONFIG = MatcherConfig()


def match(cost: list[list[float]], overlap: list[list[float]] | None = None) -> list[int]:
    """Queries in rows, objects in columns."""
    costs = torch.tensor([cost])
    overlaps = torch.zeros_like(costs) if overlap is None else torch.tensor([overlap])
    valid = torch.ones(1, costs.shape[2], dtype=torch.bool)
    return dynamic_k_match(costs, overlaps, valid)[0].tolist()


def test_each_object_takes_its_cheapest_query() -> None:
    assert match([[1.0, 9.0], [9.0, 9.0], [9.0, 2.0]]) == [0, FREE, 1]


def test_k_is_the_whole_part_of_the_summed_overlaps() -> None:
    cost = [[1.0], [2.0], [3.0], [4.0]]
    assert match(cost, [[0.9], [0.9], [0.9], [0.2]]) == [0, 0, FREE, FREE]  # 2.9
    assert match(cost, [[0.3], [0.1], [0.1], [0.1]]) == [0, FREE, FREE, FREE]  # at least one
    assert match(cost, [[1.0], [1.0], [1.0], [1.0]]) == [0, 0, 0, 0]


def test_a_contested_query_goes_to_its_cheapest_object() -> None:
    # both want query 0; object 1 is cheaper there, so object 0 falls back to query 2
    assert match([[2.0, 1.0], [9.0, 9.0], [3.0, 9.0]]) == [1, FREE, 0]


def test_objects_without_a_query_take_them_in_rounds() -> None:
    # all want query 0, then query 1
    cost = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [9.0, 9.0, 7.0], [9.0, 9.0, 9.0]]
    assert match(cost) == [0, 1, 2, FREE]


def test_an_object_with_two_queries_spares_one_where_none_is_free() -> None:
    # object 0 takes both (k = 2); object 1 then gets the one that is cheaper for it
    assert match([[1.0, 5.0], [1.0, 6.0]], [[1.0, 0.0], [1.0, 0.0]]) == [1, 0]


def test_more_objects_than_queries_use_every_query_once() -> None:
    owner = match([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [[1.0, 0.0, 0.0]] * 2)
    assert FREE not in owner and len(set(owner)) == 2


def test_a_held_query_goes_to_its_object_and_to_no_other() -> None:
    # queries 0 and 1 are both cheapest for object 0; query 1 is held by object 1, query 2 free
    cost = torch.tensor([[[1.0, 9.0], [0.5, 9.0], [3.0, 8.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    overlap = torch.zeros_like(cost)
    assert dynamic_k_match(cost, overlap, valid).tolist() == [[FREE, 0, 1]]
    held = torch.tensor([[FREE, 1, FREE]])
    assert dynamic_k_match(with_held(cost, held), overlap, valid).tolist() == [[0, 1, FREE]]
    none = torch.full((1, 3), FREE)
    assert torch.equal(with_held(cost, none), cost)


def test_padded_objects_are_never_taken() -> None:
    valid = torch.tensor([[True, False], [False, False]])
    cost = torch.tensor([[[5.0, -1e9], [6.0, -1e9], [7.0, 0.0]]]).repeat(2, 1, 1)
    owner = dynamic_k_match(cost, torch.ones(2, 3, 2), valid)
    assert owner.tolist() == [[0, 0, 0], [FREE] * 3]


def test_no_objects_or_no_queries() -> None:
    valid = torch.ones(2, 0, dtype=torch.bool)
    assert (
        dynamic_k_match(torch.zeros(2, 3, 0), torch.zeros(2, 3, 0), valid).tolist()
        == [[FREE] * 3] * 2
    )
    valid = torch.ones(2, 3, dtype=torch.bool)
    assert dynamic_k_match(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), valid).shape == (2, 0)


def costs_of(kind: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator)
    match kind:
        case "uniform":
            return uniform
        case "negative":
            return -1000 * uniform
        case "equal":
            return torch.full(shape, 3.0)
        case "few values":
            return (uniform * 3).floor()
        case "huge":
            return (uniform - 0.5) * 6e38
        case _:
            penalty = 10_000.0 * (torch.rand(shape[:2], generator=generator) < 0.9)
            return uniform * 5 + penalty[..., None]


@settings(max_examples=200)
@given(
    st.sampled_from(["uniform", "negative", "equal", "few values", "huge", "penalties"]),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(0, 2**31),
    st.floats(0, 1),
)
def test_everyone_is_served_no_query_twice_and_it_ends(
    kind: str, queries: int, objects: int, seed: int, coverage: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = costs_of(kind, (2, queries, objects), generator)
    overlap = torch.rand(cost.shape, generator=generator) * coverage
    valid = torch.rand(2, objects, generator=generator) < 0.8
    owner = dynamic_k_match(cost, overlap, valid)
    assert owner.shape == (2, queries)  # one number each: no query can have two objects
    for row, real in zip(owner, valid, strict=True):
        taken = row[row != FREE]
        assert real[taken].all()
        assert len(taken.unique()) == min(int(real.sum()), queries)


def test_a_row_does_not_change_another() -> None:
    generator = torch.Generator().manual_seed(0)
    cost, overlap = torch.rand(2, 6, 12, 9, generator=generator)
    valid = torch.rand(6, 9, generator=generator) < 0.7
    together = dynamic_k_match(cost, overlap, valid)
    for i in range(6):
        row = slice(i, i + 1)
        assert torch.equal(dynamic_k_match(cost[row], overlap[row], valid[row]), together[row])


def test_costs_that_are_no_numbers_still_match() -> None:
    cost = torch.full((1, 4, 2), math.nan)
    cost[0, 2] = math.inf
    owner = dynamic_k_match(cost, torch.zeros(1, 4, 2), torch.ones(1, 2, dtype=torch.bool))[0]
    assert sorted(owner[owner != FREE].tolist()) == [0, 1]


def test_class_cost_by_hand() -> None:
    # p = 1/2: (1/4 * 1/4 - 3/4 * 1/4) ln 2 = -ln 2 / 8; the log cost cancels
    logits, labels = torch.zeros(1, 1, 3), torch.tensor([[2, 0]])
    assert (
        class_cost(logits, labels, "focal")[0, 0].tolist() == [pytest.approx(-math.log(2) / 8)] * 2
    )
    assert class_cost(logits, labels, "log")[0, 0].tolist() == [0, 0]
    logits = torch.tensor([[[math.log(3), 0.0]]])  # p = 3/4
    assert class_cost(logits, torch.tensor([[0]]), "log").item() == pytest.approx(-math.log(3))


def cost_of(
    boxes: list[list[float]], targets: list[list[float]], config: MatcherConfig = CONFIG
) -> Tensor:
    """Costs without the class part: p = 1/2 for the only class, log cost."""
    count = len(targets)
    cost, _ = matching_cost(
        torch.zeros(1, len(boxes), 1),
        torch.tensor([boxes]),
        torch.tensor([targets]).reshape(1, count, 4),
        torch.zeros(1, count, dtype=torch.int64),
        torch.ones(1, count, dtype=torch.bool),
        torch.tensor([[[200.0, 100.0, 200.0, 100.0]]]),
        config,
        "log",
    )
    return cost[0]


def test_cost_of_a_perfect_box() -> None:
    assert cost_of([[10.0, 10, 30, 20]], [[10.0, 10, 30, 20]]).tolist() == [[-2]]


def test_cost_of_a_shifted_box() -> None:
    # 10 to the right: L1 (10 + 10) / 200; overlap 10x10, union 300, hull 300; centre still inside
    cost = cost_of([[18.0, 10, 38, 20]], [[10.0, 10, 30, 20]])
    assert cost.item() == pytest.approx(5 * 16 / 200 - 2 * (120 / 280))
    # in shares of the object's own width
    cost = cost_of([[18.0, 10, 38, 20]], [[10.0, 10, 30, 20]], MatcherConfig(l1_unit="object"))
    assert cost.item() == pytest.approx(5 * 16 / 20 - 2 * (120 / 280))


def test_cost_outside_object_and_neighbourhood() -> None:
    only_size, target = MatcherConfig(l1_weight=0, giou_weight=0), [10.0, 10, 14, 14]
    inside, border, near, limit, far = ([x, 11.0, x, 13.0] for x in (13.0, 14.0, 21.0, 22.0, 60.0))
    cost = cost_of([inside, border, near, limit, far], [target], only_size)
    # neighbourhood: 12 +/- 2.5 * 4, borders excluded
    assert cost[:, 0].tolist() == [0, 100, 100, 10_100, 10_100]


def test_a_query_near_any_object_is_not_far() -> None:
    only_size = MatcherConfig(l1_weight=0, giou_weight=0)
    cost = cost_of([[11.0, 11, 13, 13]], [[10.0, 10, 14, 14], [90.0, 90, 94, 94]], only_size)
    assert cost.tolist() == [[0, 100]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_degenerate_objects_and_boxes_have_finite_costs(dtype: torch.dtype) -> None:
    points = [[5.0, 5, 5, 5], [9.0, 9, 3, 3], [0.0, 0, 200, 100]]
    rows = torch.tensor([points])
    cost, overlap = matching_cost(
        torch.tensor([[[-90.0], [0.0], [90.0]]]).to(dtype),
        rows,
        rows,
        torch.zeros(1, 3, dtype=torch.int64),
        torch.ones(1, 3, dtype=torch.bool),
        torch.tensor([[[200.0, 100.0, 200.0, 100.0]]]),
        CONFIG,
    )
    assert torch.isfinite(cost).all() and torch.isfinite(overlap).all()
    assert cost.dtype == torch.float32


def test_no_objects_have_no_costs() -> None:
    assert cost_of([[1.0, 1, 2, 2]], []).shape == (1, 0)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_the_order_of_objects_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(1, 6, 3, generator=generator)
    overlap = torch.rand(1, 6, 3, generator=generator)
    valid = torch.ones(1, 3, dtype=torch.bool)
    owner = dynamic_k_match(cost, overlap, valid)[0]
    for order in itertools.permutations(range(3)):
        permuted = dynamic_k_match(cost[..., list(order)], overlap[..., list(order)], valid)[0]
        named = torch.tensor([*order, FREE])[permuted]
        assert torch.equal(named, owner)
