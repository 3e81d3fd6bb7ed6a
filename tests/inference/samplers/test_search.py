"""Does search look anew in every step, keep what it found, and take starts at their own times?"""

from __future__ import annotations

import pytest
import torch

from diffinst.config import Config, ConfigError, Options
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.start import Start
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.inference.predictor import DiffusionInst
from diffinst.structures import Encoded

N = 12
NORMAL = Config.from_preset("tiny").model.diffusion
SIZE = (48, 64)


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


@pytest.fixture(scope="module")
def encoded(model: DiffusionInst) -> list[Encoded]:
    """Two images together, and the first alone."""
    pixels = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 255
    pipeline = Pipeline(model.network, model.config, Options())
    with torch.inference_mode():
        both = pipeline.encode(pipeline.prepare(list(pixels.byte())))
    return [both, both[0]]


def run(model: DiffusionInst, encoded: Encoded, options: Options, seeds: list[int]) -> list[Step]:
    noise = Noise.draw(seeds, options.steps, options.proposals, NORMAL)
    with torch.inference_mode():
        return list(Pipeline(model.network, model.config, options).run(encoded, noise))


def test_search_starts_every_step_from_fresh_noise_at_the_last_time(
    model: DiffusionInst, encoded: list[Encoded]
) -> None:
    options = Options(kind="search", steps=3, proposals=N)
    noise = Noise.draw([0, 1], 3, N, NORMAL)
    steps = run(model, encoded[0], options, [0, 1])
    assert [step.time for step in steps] == [999, 999, 999]
    torch.testing.assert_close(steps[0].x_t, noise.start)
    for index in (1, 2):
        torch.testing.assert_close(steps[index].x_t, noise.renewal[index - 1])
    assert not any(bool(step.kept.any()) for step in steps)  # nobody goes on, all start again
    # nothing that was found is lost or moved
    first, last = steps[0].candidates, steps[2].candidates
    assert last.boxes.shape == (2, 3 * N, 4)
    torch.testing.assert_close(last.boxes[:, :N], first.boxes)
    torch.testing.assert_close(last.scores[:, :N], first.scores)
    alone = run(model, encoded[1], options, [0])
    torch.testing.assert_close(alone[2].candidates.boxes[0], last.boxes[0], rtol=1e-4, atol=0.02)


def test_search_gives_each_proposal_its_own_time(
    model: DiffusionInst, encoded: list[Encoded]
) -> None:
    options = Options(kind="search", steps=2, proposals=N)
    pipeline = Pipeline(model.network, model.config, options)
    starts = [Start([[4, 4, 20, 30]], time=20), Start([[4, 4, 20, 30], [8, 8, 30, 30]], time=20)]
    noise = Noise.draw([0, 1], 2, N, NORMAL)
    outputs = [SIZE] * 2
    x, t = pipeline.sampler.begin(starts, outputs, encoded[0], noise.start)
    assert t.tolist() == [[20] + [999] * (N - 1), [20, 20] + [999] * (N - 2)]
    torch.testing.assert_close(x[0, 1:].float(), noise.start[0, 1:])
    with torch.inference_mode():
        first, second = pipeline.run(encoded[0], noise, starts, outputs)
    torch.testing.assert_close(first.x_t, x)
    torch.testing.assert_close(second.x_t.float(), noise.renewal[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": (700, 3)}, "times is 700, 3, but sampler.kind search begins every step"),
        ({"ensemble": "last"}, "ensemble is last, but sampler.kind search goes by all"),
    ],
)
def test_what_does_not_go_with_search(
    model: DiffusionInst, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Options.of(model.config, kind="search", **given)  # type: ignore[arg-type]
