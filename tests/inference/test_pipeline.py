"""Does an image's run depend on its own noise only, and is each step what Eq. 6 says?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from diffinst.config import Config, ConfigError, DiffusionConfig, Options
from diffinst.datasets.synthetic import make_shapes
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.schedule import cosine_schedule, time_pairs
from diffinst.diffusion.signal import from_signal, to_signal
from diffinst.diffusion.solvers.ddim import Ddim
from diffinst.inference.found import candidates_of
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import read_image
from diffinst.models.decoder_stage import DecoderStage
from diffinst.structures import Encoded

N = 12
NORMAL = DiffusionConfig()


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


@pytest.fixture(scope="module")
def encoded(model: DiffusionInst, tmp_path_factory: pytest.TempPathFactory) -> list[Encoded]:
    """Two images as a batch, then each alone."""
    root = make_shapes(tmp_path_factory.mktemp("shapes"), train=2, val=0, size=(64, 96))
    images = [read_image(path) for path in sorted((root / "train").iterdir())]
    with torch.inference_mode():
        pipeline = Pipeline(model.network, model.config, Options())
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        both, *alone = (tensors, *([tensor] for tensor in tensors))
        return [pipeline.encode(pipeline.prepare(some)) for some in (both, *alone)]


def run(model: DiffusionInst, encoded: Encoded, config: Options, seeds: list[int]) -> list[Step]:
    diffusion = model.config.model.diffusion
    noise = Noise.draw(seeds, config.steps, config.proposals, diffusion)
    with torch.inference_mode():
        return list(Pipeline(model.network, model.config, config).run(encoded, noise))


def best_scores(step: Step) -> torch.Tensor:
    """(B, N) best class probability of each proposal."""
    return step.stages[-1].logits.sigmoid().amax(-1)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_shapes_for_any_number_of_steps(
    model: DiffusionInst, encoded: list[Encoded], steps: int
) -> None:
    config = Options(steps=steps, proposals=N)
    noise = Noise.draw([0, 1], config.steps, N, NORMAL)
    assert noise.start.shape == (2, N, 4)
    assert noise.renoise.shape == noise.renewal.shape == (steps - 1, 2, N, 4)
    found = run(model, encoded[0], config, [0, 1])
    assert [step.index for step in found] == list(range(steps))
    assert [step.time for step in found] == [now for now, _ in time_pairs(steps, 1000)]
    for step in found:
        assert step.x_t.shape == step.boxes.shape == step.stages[-1].boxes.shape == (2, N, 4)
        assert step.kept.shape == (2, N) and bool(step.active.all())
    assert found[-1].candidates.boxes.shape == (2, steps * N, 4)


def test_renewal_keeps_n_and_puts_the_kept_first_in_order(
    model: DiffusionInst, encoded: list[Encoded]
) -> None:
    # A threshold between the scores of the first step, so that some proposals go on.
    config = Options(steps=3, proposals=N)
    threshold = float(best_scores(run(model, encoded[0], config, [0, 1])[0]).median())
    config = config.model_copy(update={"renewal_threshold": threshold})
    noise = Noise.draw([0, 1], config.steps, N, NORMAL)
    steps, schedule = run(model, encoded[0], config, [0, 1]), cosine_schedule(1000)
    assert 0 < int(steps[0].kept.sum()) < 2 * N
    scale = encoded[0].scale
    for index, (now, following) in enumerate(time_pairs(3, 1000)[:-1]):
        step, after = steps[index], steps[index + 1].x_t
        assert torch.equal(step.kept, best_scores(step) > threshold)
        x_start = to_signal(step.stages[-1].boxes, scale, NORMAL).clamp(-2, 2)
        for image in range(2):
            expected = [
                Ddim().step(
                    step.x_t[image, proposal],
                    x_start[image, proposal],
                    noise.renoise[index, image, rank],
                    now=now,
                    following=following,
                    schedule=schedule,
                )
                for rank, proposal in enumerate(step.kept[image].nonzero()[:, 0].tolist())
            ]
            fresh = noise.renewal[index, image, : N - len(expected)].double()
            torch.testing.assert_close(after[image], torch.stack([*expected, *fresh]))
        boxes = from_signal(after, scale, NORMAL)
        torch.testing.assert_close(steps[index + 1].boxes, boxes)


@pytest.mark.parametrize(
    ("ensemble", "steps", "counted"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("official", 4, [0, 1, 2]),
        ("official", 2, [0]),
        ("official", 1, [0]),  # else nothing would be left
        ("last", 4, [3]),
        ("last", 1, [0]),
    ],
)
def test_which_steps_enter_the_ensemble(
    model: DiffusionInst, encoded: list[Encoded], ensemble: str, steps: int, counted: list[int]
) -> None:
    values = {"steps": steps, "proposals": N, "ensemble": ensemble}
    found = run(model, encoded[1], Options.model_validate(values), [0])
    pool = found[-1].candidates
    expected = [candidates_of(found[i].stages[-1], found[i].active).scores for i in counted]
    assert torch.equal(pool.scores[pool.scores >= 0], torch.cat(expected, 1)[0])


def test_pool_takes_the_best_pairs_of_proposal_and_class(
    model: DiffusionInst, encoded: list[Encoded]
) -> None:
    output = run(model, encoded[0], Options(proposals=N), [0, 1])[0].stages[-1]
    pool = candidates_of(output, torch.tensor([True, False]))
    assert bool((pool.scores[1] == -1).all())
    pairs = [
        (float(output.logits[0, proposal, label].sigmoid()), proposal, label)
        for proposal in range(N)
        for label in range(3)
    ]
    expected = sorted(pairs, reverse=True)[:N]
    order = pool.scores[0].argsort(descending=True).tolist()
    for i, (score, proposal, label) in zip(order, expected, strict=True):
        assert float(pool.scores[0, i]) == pytest.approx(score)
        assert int(pool.labels[0, i]) == label
        assert torch.equal(pool.boxes[0, i], output.boxes[0, proposal])
        assert torch.equal(pool.filters[0, i], output.filters[0, proposal])
        assert int(pool.proposals[0, i]) == proposal


@pytest.fixture(scope="module")
def steady() -> DiffusionInst:
    """A model that moves no box and always says class 0, so that steps resemble each other."""
    model = DiffusionInst.from_preset("tiny")
    for stage in model.network.decoder.stages:
        assert isinstance(stage, DecoderStage)
        for layer in (stage.deltas, stage.class_logits):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        torch.nn.init.ones_(stage.class_logits.bias[:1])
    return model


def one_stops_early(
    model: DiffusionInst, encoded: list[Encoded], ensemble: str = "all"
) -> list[list[Step]]:
    """Every box is confident; those of image 0 lie at the fixed point 0 and stay, it stops.

    Those of image 1 move outwards by half: x' = (sqrt(abar') + sqrt(1 - abar')) x at eta 0.

    Returns:
        The runs of the batch and of each image alone.
    """
    values = {"steps": 3, "proposals": 2, "renewal_threshold": 0.0, "eta": 0.0, "early_stop": 0.95}
    config = Options.model_validate({**values, "ensemble": ensemble})
    start = torch.zeros(2, 2, 4)
    start[1] = torch.tensor([[0.5, 0.5, -0.5, -0.5], [-0.5, 0.5, 0.5, -0.5]])
    later = torch.zeros(2, 2, 2, 4)
    runs = []
    for some, images in zip(encoded, (slice(None), slice(0, 1), slice(1, 2)), strict=True):
        noise = Noise(start[images], later[:, images], later[:, images])
        with torch.inference_mode():
            runs.append(list(Pipeline(model.network, model.config, config).run(some, noise)))
    return runs


def test_an_image_that_stops_never_changes_another(
    steady: DiffusionInst, encoded: list[Encoded]
) -> None:
    both, *alone = one_stops_early(steady, encoded)
    stopped = 0
    assert [len(both), len(alone[stopped]), len(alone[1 - stopped])] == [3, 2, 3]
    assert [step.active[stopped].item() for step in both] == [True, True, False]
    assert all(step.active[1 - stopped].item() for step in both)
    for image, single in enumerate(alone):
        for step, own in zip(both, single, strict=False):
            found, expected = step.stages[-1], own.stages[-1]
            torch.testing.assert_close(found.boxes[image], expected.boxes[0], rtol=1e-5, atol=1e-3)
            torch.testing.assert_close(
                found.logits[image], expected.logits[0], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("ensemble", ["all", "official", "last"])
def test_a_stopped_image_keeps_its_candidates(
    steady: DiffusionInst, encoded: list[Encoded], ensemble: str
) -> None:
    # `last` means an image's own last step: one that stopped must not come out empty.
    pool = one_stops_early(steady, encoded, ensemble)[0][-1].candidates
    count = {"all": (2, 3), "official": (2, 2), "last": (1, 1)}[ensemble]
    assert int((pool.scores[0] >= 0).sum()) == count[0] * 2
    assert int((pool.scores[1] >= 0).sum()) == count[1] * 2


@pytest.mark.parametrize("ensemble", ["all", "official", "last"])
def test_the_run_ends_when_all_have_stopped(
    model: DiffusionInst, encoded: list[Encoded], ensemble: str
) -> None:
    # Everything is confident at threshold 0, and any overlap is enough at IoU 0.
    values = {
        "steps": 4,
        "proposals": N,
        "renewal_threshold": 0.0,
        "early_stop": 0.0,
        "ensemble": ensemble,
    }
    found = run(model, encoded[0], Options.model_validate(values), [0, 1])
    assert len(found) == 2
    expected = N if ensemble == "last" else 2 * N
    assert (found[-1].candidates.scores >= 0).sum(1).tolist() == [expected, expected]


def test_an_image_without_confident_boxes_goes_on(
    model: DiffusionInst, encoded: list[Encoded]
) -> None:
    config = Options(steps=3, proposals=N, renewal_threshold=1.0, early_stop=0.0)
    assert len(run(model, encoded[0], config, [0, 1])) == 3


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("steps", -3), ("steps", 1001), ("proposals", 0)]
)
def test_values_out_of_range_are_named(model: DiffusionInst, field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{field}.*{re.escape(str(value))}") as caught:
        model.predict(torch.zeros(3, 8, 8, dtype=torch.uint8), **{field: value})  # type: ignore[call-overload]
    assert len(str(caught.value)) < 200


def test_no_run_is_longer_than_the_schedule(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: {diffusion: {timesteps: 10}}\nsampler: {steps: 11}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml.*sampler\.steps is 11.*1 to 10"):
        Config.from_file(path)


@pytest.mark.parametrize("kind", ["ddim", "search"])
def test_auto_ends_each_image_where_a_step_adds_nothing(
    steady: DiffusionInst, encoded: list[Encoded], kind: str
) -> None:
    # Boxes stay where they are, each with a class probability of 0.73. Image 0 sees the same two
    # in every step: the second adds nothing. Image 1 sees others in step 2, and then those of step
    # 1 again: the third adds nothing.
    corner, other = torch.full((2, 4), -1.0), torch.full((2, 4), 1.0)
    start = torch.stack([corner, corner])
    later = torch.stack([torch.stack([corner, other]), torch.stack([corner, corner])])
    later = torch.cat([later, later])[:4]
    runs = []
    for some, images in zip(encoded, (slice(None), slice(0, 1), slice(1, 2)), strict=True):
        options = Options.of(
            steady.config,
            kind=kind,  # type: ignore[arg-type]
            steps="auto",
            most_steps=5,
            proposals=2,
            renewal_threshold=1.0,
            new_score=0.5,
        )
        noise = Noise(start[images], later[:, images], later[:, images])
        with torch.inference_mode():
            runs.append(list(Pipeline(steady.network, steady.config, options).run(some, noise)))
    both, *alone = runs
    assert [len(both), len(alone[0]), len(alone[1])] == [3, 2, 3]
    assert [step.active.tolist() for step in both] == [[True, True], [True, True], [False, True]]
    real = (both[-1].candidates.scores >= 0).sum(1).tolist()
    assert real == [2 * 2, 3 * 2]  # what comes after an image has stopped does not count


def test_an_image_without_anything_costs_one_step(
    steady: DiffusionInst, encoded: list[Encoded]
) -> None:
    options = Options.of(steady.config, steps="auto", proposals=2, new_score=0.8)
    assert len(run(steady, encoded[0], options, [0, 1])) == 1
