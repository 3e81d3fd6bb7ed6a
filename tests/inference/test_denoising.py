"""Does a recording of all steps predict what the steps themselves predict?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from diffinst.acceleration.record import Function, Tensors
from diffinst.config import Config, SamplerConfig
from diffinst.inference.denoising import Denoiser
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
CONFIG = SamplerConfig(steps=3, proposals=12)


class Operations:
    """Records the operations of one run; all numbers of Python become constants."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        self.count += 1
        recorded: Any = make_fx(function)(*inputs)
        return lambda: tuple(recorded(*inputs))


@pytest.fixture(scope="module")
def network() -> DiffusionInstNetwork:
    torch.manual_seed(0)
    return DiffusionInstNetwork(Config.from_preset("tiny").model).eval().requires_grad_(False)


def batch(seed: int, *sizes: tuple[int, int]) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (len(sizes), 3, 64, 96), generator=generator).float()
    return ImageBatch(pixels, sizes)


@torch.no_grad()
def test_another_image_and_noise_of_the_same_padded_size(network: DiffusionInstNetwork) -> None:
    """All that differs is read anew: pixels, sizes inside the padding, every draw."""
    record = Operations()
    plain, recorded = Denoiser(network), Denoiser(network, record)
    runs = [
        (batch(5, (64, 96)), [1], CONFIG),  # what comes once is not recorded
        (batch(0, (64, 96)), [0], CONFIG),
        (batch(1, (50, 90)), [7], CONFIG),
        (batch(2, (64, 70), (60, 96)), [1, 2], CONFIG),
        (batch(3, (33, 96), (64, 65)), [3, 3], CONFIG),
        (batch(4, (64, 96)), [0], CONFIG.model_copy(update={"steps": 1})),
    ]
    for images, seeds, config in runs:
        wanted, features = plain(images, seeds, config)
        found, read = recorded(images, seeds, config)
        for name in ("boxes", "scores", "labels", "filters"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
        torch.testing.assert_close(read.mask_features, features.mask_features)
        assert read.sizes == features.sizes == images.sizes
    assert record.count == 2  # one image, two; other steps came once


@torch.no_grad()
def test_a_run_that_may_stop_early_is_not_recorded(network: DiffusionInstNetwork) -> None:
    record = Operations()
    denoiser = Denoiser(network, record)
    for config, count in ((CONFIG.model_copy(update={"early_stop": 0.9}), 0), (CONFIG, 1)):
        for _ in range(3):
            denoiser(batch(0, (64, 96)), [0], config)
        assert record.count == count


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_it_is(network: DiffusionInstNetwork) -> None:
    calls = []

    def refuse(function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        calls.append(inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    denoiser = Denoiser(network, refuse)
    denoiser(batch(0, (64, 96)), [0], CONFIG)
    with pytest.warns(UserWarning, match="not recorded: operation not permitted .* capturing$"):
        found, _ = denoiser(batch(0, (64, 96)), [0], CONFIG)
    wanted, _ = Denoiser(network)(batch(0, (64, 96)), [0], CONFIG)
    assert torch.equal(found.boxes, wanted.boxes)
    denoiser(batch(0, (64, 96)), [0], CONFIG)
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

    denoiser = Denoiser(network, full)
    wanted, _ = Denoiser(network)(batch(0, (64, 96)), [0], CONFIG)
    for _ in range(6):  # met, refused, met, refused, met, recorded
        found, _ = denoiser(batch(0, (64, 96)), [0], CONFIG)
        torch.testing.assert_close(found.boxes, wanted.boxes)
    assert traced.count == 1 and not errors


def test_the_last_noise_is_kept(network: DiffusionInstNetwork) -> None:
    denoiser = Denoiser(network)
    first = denoiser.noise([1, 2], CONFIG)
    assert denoiser.noise([1, 2], CONFIG) is first
    assert not torch.equal(denoiser.noise([2, 1], CONFIG).start, first.start)
    fewer = denoiser.noise([1, 2], CONFIG.model_copy(update={"proposals": 5}))
    assert fewer.start.shape == (2, 5, 4)
