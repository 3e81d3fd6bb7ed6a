"""Is it the average that is scored and kept, while training goes on as if it were not there?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffinst.config import Config
from diffinst.training.module import DiffusionInstModule
from diffinst.training.run_folder import BEST
from diffinst.weights import store

Settings = Callable[..., Config]
Runner = Callable[..., Path]
Weights = dict[str, Tensor]
DECAY = 0.2
ITERATIONS = 3


@dataclass
class Seen:
    """Weights before and after each iteration, and at each evaluation by iterations done."""

    before: list[Weights] = field(default_factory=list)
    after: list[Weights] = field(default_factory=list)
    scored: dict[int, Weights] = field(default_factory=dict)
    out: Path = Path()


def copy(module: torch.nn.Module) -> Weights:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def seen(quick: Settings, trained: Runner, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Three iterations with an average, evaluated after the second and at the end."""
    result = Seen(out=tmp_path_factory.mktemp("average"))
    step, validate = DiffusionInstModule.training_step, DiffusionInstModule.validation_step

    def watched_step(module: DiffusionInstModule, *arguments: object) -> None:
        result.before.append(copy(module.network))
        step(module, *arguments)  # type: ignore[arg-type]
        result.after.append(copy(module.network))

    def watched_validation(module: DiffusionInstModule, *arguments: object) -> None:
        result.scored[module.iteration] = copy(module.network)
        validate(module, *arguments)  # type: ignore[arg-type]

    chosen = quick(iterations=ITERATIONS, ema=DECAY, eval_every=2, lr=1e-2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionInstModule, "training_step", watched_step)
        patch.setattr(DiffusionInstModule, "validation_step", watched_validation)
        trained(chosen, result.out)
    return result


def averages(seen: Seen) -> list[Weights]:
    """After each iteration: the first weights, then shares of what was by (1 + i) / (10 + i)."""
    shares = [0.0, 2 / 11, DECAY]  # 3 / 12 is more than the decay
    found: list[Weights] = []
    for share, new in zip(shares, seen.after, strict=True):
        old = found[-1] if found else new
        mixed = {}
        for name, value in new.items():
            whole = not value.is_floating_point()  # counters
            mixed[name] = value if whole else share * old[name] + (1 - share) * value
        found.append(mixed)
    return found


def test_training_goes_on_from_its_own_weights(seen: Seen) -> None:
    assert len(seen.after) == ITERATIONS
    for left, taken_up in zip(seen.after[:-1], seen.before[1:], strict=True):
        torch.testing.assert_close(taken_up, left, rtol=0, atol=0)


def test_the_average_is_what_is_scored(seen: Seen) -> None:
    assert sorted(seen.scored) == [2, 3]
    for iteration, weights in seen.scored.items():
        torch.testing.assert_close(weights, averages(seen)[iteration - 1], rtol=1e-5, atol=1e-6)
        raw = seen.after[iteration - 1]
        names = [name for name, value in weights.items() if not torch.equal(value, raw[name])]
        assert any("decoder" in n for n in names)
        assert any("running" in n for n in names)  # statistics, too


def test_the_best_model_is_the_average_that_was_scored(seen: Seen) -> None:
    best = load_file(seen.out / BEST / store.WEIGHTS_FILE)
    when = json.loads((seen.out / BEST / "metrics.json").read_text())["iteration"]
    torch.testing.assert_close(best, seen.scored[when], rtol=0, atol=0)
    store.load(seen.out / BEST)


def test_the_run_ends_with_the_average(seen: Seen) -> None:
    final = load_file(seen.out / store.WEIGHTS_FILE)
    torch.testing.assert_close(final, averages(seen)[-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(final, seen.scored[ITERATIONS], rtol=0, atol=0)
