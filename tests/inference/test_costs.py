"""Do forecasts lie between what was measured, and are they kept by what they hang on?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffinst.config import Options
from diffinst.inference.costs import PROBES, ROUNDS, Clock, Costs, Shelf, key_of, measured
from diffinst.inference.pipeline import Size
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.runner import Runner
from diffinst.structures import Encoded

COSTS = Costs(step=((100, 0.1), (300, 0.2)), end=((100, 0.02), (300, 0.01)))


@pytest.fixture(scope="module")
def runner(tiny: DiffusionInst) -> Runner:
    return Runner(tiny.network, tiny.config)


@pytest.fixture(scope="module")
def encoded(runner: Runner) -> Encoded:
    return runner.encode([torch.zeros(3, 40, 60, dtype=torch.uint8)], Options())


def test_lines_by_hand() -> None:
    counts = np.array([50.0, 100, 150, 300, 500])
    # 0.1 s more for 200 boxes more; below the fewest as the fewest
    np.testing.assert_allclose(COSTS.of_step(counts), [0.1, 0.1, 0.125, 0.2, 0.3])
    # it never falls beyond the most, whatever a noisy clock said
    np.testing.assert_allclose(COSTS.of_end(counts), [0.02, 0.02, 0.0175, 0.01, 0.01])
    assert COSTS.scaled(2, 3).step == ((100, 0.2), (300, 0.4))
    assert COSTS.scaled(2, 3).end[1][1] == pytest.approx(0.03)


@torch.inference_mode()
def taken(runner: Runner, encoded: Encoded, clock: Clock) -> Costs:
    return measured(runner.pipeline, encoded, Options(), (40, 60), clock)


def test_every_probe_is_measured(runner: Runner, encoded: Encoded) -> None:
    ticks = iter(range(1000))
    costs = taken(runner, encoded, lambda: 0.25 * next(ticks))
    assert [count for count, _ in costs.step] == [count for count, _ in costs.end] == [*PROBES]
    assert {seconds for _, seconds in costs.step + costs.end} == {0.25}  # a tick each
    assert next(ticks) == 3 * (ROUNDS * len(PROBES) + 1)  # one round to warm up


def test_long_steps_are_not_made_longer(runner: Runner, encoded: Encoded) -> None:
    ticks = iter(range(1000))
    costs = taken(runner, encoded, lambda: 2.0 * next(ticks))
    assert [count for count, _ in costs.step] == [*PROBES[:2]]  # two make a line


def test_the_shelf_keeps_what_is_usable(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new")
    assert shelf.read("a") is None
    shelf.write("a", COSTS)
    assert shelf.read("a") == COSTS and shelf.read("b") is None
    for wrong in ("", "[]", '{"step": [], "end": []}', '{"step": [[1, -1], [2, 1]], "end": 3}'):
        shelf.path("a").write_text(wrong)
        assert shelf.read("a") is None


def test_no_home_and_no_disk_are_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    full = Shelf(tmp_path / "file")
    full.write("a", COSTS)
    assert full.read("a") is None
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    assert Shelf().path("a") == tmp_path / "cache" / "costs" / "a.json"


def test_a_key_changes_with_all_that_costs_hang_on(tiny: DiffusionInst, encoded: Encoded) -> None:
    asked = Options()

    def key(
        model: DiffusionInst = tiny,
        output: Size = (40, 60),
        *,
        plain: bool = True,
        **changed: object,
    ) -> str:
        options = asked.model_copy(update=changed)
        return key_of(model.network, encoded, options, output, plain=plain)

    assert key() == key(seed=3, steps=4, proposals=7, seconds=1.0, kind="search")
    assert key() == key(output=(60, 40)) == key(output=(41, 59))  # each about 2 to the power of 11
    keys = [key(), key(plain=False), key(threshold=0.5), key(mask_quality=1.0)]
    keys += [key(output=(80, 60)), key(output=(4000, 6000))]  # of the same network input
    keys.append(key(DiffusionInst.from_preset("tiny", seed=1)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    keys.append(key())
    torch.set_num_threads(threads)
    assert len(set(keys)) == len(keys)
