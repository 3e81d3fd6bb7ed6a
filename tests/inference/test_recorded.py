"""Does a recording of all steps predict what the steps themselves predict?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from diffinst.acceleration.record import Function, Recorded, Tensors
from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.inference.launch import Launch, direct
from diffinst.inference.pipeline import Pipeline
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Candidates, Encoded, ImageBatch

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
CONFIG = Options(steps=3, proposals=12)


class Operations:
    """Records the operations of one run; all numbers of Python become constants."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        self.count += 1
        recorded: Any = make_fx(lambda *given: function(*given))(*inputs)
        return lambda: tuple(recorded(*inputs))


@pytest.fixture(scope="module")
def network() -> DiffusionInstNetwork:
    """Of one stage: tracing takes longest, stage by stage."""
    torch.manual_seed(0)
    config = Config.from_preset("tiny").updated(model={"decoder": {"stages": 1}})
    return DiffusionInstNetwork(config.model).eval().requires_grad_(False)


def batch(seed: int, *sizes: tuple[int, int]) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (len(sizes), 3, 64, 96), generator=generator).float()
    return ImageBatch(pixels, sizes)


def run(
    network: DiffusionInstNetwork,
    launch: Launch,
    images: ImageBatch,
    seeds: list[int],
    options: Options = CONFIG,
) -> tuple[Candidates, Encoded]:
    """Candidates of all steps, and what they were found in."""
    pipeline = Pipeline(network, Config(), options, launch)
    encoded = pipeline.encode(images)
    diffusion = network.config.diffusion
    noise = Noise.draw(seeds, options.steps, options.proposals, diffusion)
    *_, last = pipeline.run(encoded, noise)
    return last.candidates, encoded


@torch.no_grad()
def test_another_image_and_noise_of_the_same_padded_size(network: DiffusionInstNetwork) -> None:
    """All that differs is read anew: pixels, sizes inside the padding, every draw."""
    record = Operations()
    recorded = Recorded(record)
    runs = [
        (batch(5, (64, 96)), [1], CONFIG),  # what comes once is not recorded
        (batch(0, (64, 96)), [0], CONFIG),
        (batch(1, (50, 90)), [7], CONFIG),
        (batch(2, (64, 70), (60, 96)), [1, 2], CONFIG),
        (batch(3, (33, 96), (64, 65)), [3, 3], CONFIG),
        (batch(4, (64, 96)), [0], CONFIG.model_copy(update={"steps": 1})),
    ]
    for images, seeds, options in runs:
        wanted, whole = run(network, direct, images, seeds, options)
        found, read = run(network, recorded, images, seeds, options)
        for name in ("boxes", "scores", "labels", "filters", "proposals"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
        torch.testing.assert_close(read.mask_features, whole.mask_features)
        assert read.sizes == whole.sizes == images.sizes
    # encoding and three steps, of one image and of two; another number of steps came once
    assert record.count == 2 * (1 + CONFIG.steps)


@torch.no_grad()
def test_an_image_of_the_same_area_is_another_one(network: DiffusionInstNetwork) -> None:
    """96 x 64 has as many cells as 64 x 96, in other rows."""
    recorded, upright = Recorded(Operations()), torch.rand(1, 3, 96, 64) * 255
    for _ in range(2):
        run(network, recorded, batch(0, (64, 96)), [0])
    image = ImageBatch(upright, ((96, 64),))
    wanted, _ = run(network, direct, image, [0])
    for _ in range(2):
        found, _ = run(network, recorded, image, [0])
        torch.testing.assert_close(found.boxes, wanted.boxes)


@torch.no_grad()
def test_a_run_that_may_stop_early_is_recorded_step_by_step(network: DiffusionInstNetwork) -> None:
    record = Operations()
    recorded = Recorded(record)
    options = CONFIG.model_copy(update={"early_stop": 0.0, "renewal_threshold": 0.0})
    wanted, _ = run(network, direct, batch(0, (64, 96)), [0], options)
    for _ in range(3):
        found, _ = run(network, recorded, batch(0, (64, 96)), [0], options)
        torch.testing.assert_close(found.boxes, wanted.boxes)
    assert found.boxes.shape[1] == 2 * 12  # any overlap is enough: it ends after the second step
    assert record.count == 3


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_it_is(network: DiffusionInstNetwork) -> None:
    calls = []

    def refuse(function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        calls.append(inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    recorded, images = Recorded(refuse), batch(0, (64, 96))
    run(network, recorded, images, [0])
    with pytest.warns(UserWarning, match="not recorded: operation not permitted .* capturing$"):
        found, _ = run(network, recorded, images, [0])
    wanted, _ = run(network, direct, images, [0])
    assert torch.equal(found.boxes, wanted.boxes)
    run(network, recorded, images, [0])
    assert len(calls) == 1  # it is not tried again


@torch.no_grad()
def test_without_memory_for_a_recording_it_runs_as_it_is(network: DiffusionInstNetwork) -> None:
    """Recordings are forgotten, as they hold some; a later one may find room."""
    errors = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("cuBLAS: Out of Memory")]
    traced = Operations()

    def full(function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        if errors:
            raise errors.pop()
        return traced(function, inputs)

    recorded, images = Recorded(full), batch(0, (64, 96))
    wanted, _ = run(network, direct, images, [0])
    for _ in range(6):
        found, _ = run(network, recorded, images, [0])
        torch.testing.assert_close(found.boxes, wanted.boxes)
    assert traced.count == 1 + CONFIG.steps and not errors
