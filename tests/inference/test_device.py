"""Does a GPU run all steps on its own? Seen without one: tensors that only know where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.inference.pipeline import Pipeline
from diffinst.kernels import roi
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, Pyramid

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
SIZES, STEPS, N = ((64, 90), (60, 96)), 3, 12


class Transfers(TorchDispatchMode):
    """Notes each operation whose tensors, numbers aside, lie on more than one device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in pytree.tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        if len({t.device.type for t in tensors}) > 1:
            self.seen.append(str(func))
        return result


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """Its network lies on a GPU that is imagined, where no kernel can be tried."""
    monkeypatch.setattr(roi, "kernel_pays", lambda device, dtype: False)
    config = Config.from_preset("tiny")
    network = DiffusionInstNetwork(config.model).eval().requires_grad_(False)
    pipeline = Pipeline(network, config, Options(steps=STEPS, proposals=N))
    with FakeTensorMode(), torch.no_grad():
        try:
            torch.empty(1).to("cuda")
        except RuntimeError:
            pytest.skip("this version of torch asks the driver even for what it imagines")
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(on_gpu(parameter), requires_grad=False))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, on_gpu(buffer))
        yield pipeline


def on_gpu(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device="cuda")


def encoded(pipeline: Pipeline) -> Encoded:
    table, mask_features = pipeline.network.features(
        torch.empty(len(SIZES), 3, 64, 96, device="cuda")
    )
    pyramid = Pyramid.of_table(table, [(64 // s, 96 // s) for s in (4, 8, 16, 32)])
    scale = torch.empty(len(SIZES), 1, 4, device="cuda")
    return Encoded(pyramid, mask_features, SIZES, scale)


def noise() -> Noise:
    shape = (STEPS - 1, len(SIZES), N, 4)
    z = torch.empty(shape, device="cuda")
    start = torch.empty(shape[1:], device="cuda")
    return Noise(start, z, z)


def test_nothing_crosses_between_devices_from_pixels_to_candidates(
    pipeline: Pipeline,
) -> None:
    """A copy either way would be noted, a shape that depends on data would raise."""
    draws = noise()
    with Transfers() as transfers:
        *_, last = pipeline.run(encoded(pipeline), draws)
    boxes = last.candidates.boxes
    assert boxes.shape == (len(SIZES), STEPS * N, 4) and boxes.device.type == "cuda"
    assert transfers.seen == []


def test_the_roi_kernel_is_known_to_compilers(pipeline: Pipeline) -> None:
    """Its shape, that is; it would run on a GPU alone."""
    pytest.importorskip("triton", reason="no Triton for this platform")
    from diffinst.kernels.roi_triton import pool_on_gpu

    pyramid = encoded(pipeline).pyramid
    boxes = torch.empty(len(SIZES), N, 4, device="cuda")
    wanted, found = roi.pool(pyramid, boxes, 7, 2), roi.pool_by(pool_on_gpu, pyramid, boxes, 7, 2)
    assert (found.shape, found.device, found.dtype) == (wanted.shape, wanted.device, wanted.dtype)


@pytest.mark.usefixtures("pipeline")
def test_a_copy_and_a_question_would_be_noticed() -> None:
    with Transfers() as transfers:
        torch.empty(1).to("cuda")
        torch.tensor([1.0], device="cuda")
    assert transfers.seen == ["aten._to_copy.default"] * 2
    questions: list[Callable[[Tensor], object]] = [torch.nonzero, lambda x: x[x > 0]]
    for ask in questions:
        with pytest.raises(DynamicOutputShapeException):
            ask(torch.empty(3, device="cuda"))
