"""Does a GPU give what the CPU gives? Skipped where there is none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from diffinst import DiffusionInst
from diffinst.acceleration.optimize import Precision
from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes
from diffinst.kernels.roi import TOLERANCE, kernel_pays, pool_by
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import iou
from diffinst.ops.roi_align import pool
from diffinst.structures import Pyramid
from diffinst.training.criterion import Criterion
from diffinst.training.loader import TrainStream, collate
from diffinst.training.pairs import Match
from diffinst.training.step import TrainingStep

pytestmark = pytest.mark.gpu


def test_confident_instances_are_the_same() -> None:
    coins = np.ascontiguousarray(data.coins()[::2, ::2])
    found = {
        device: DiffusionInst.from_pretrained("nano-nuclei", device=device).predict(
            coins, steps=2, proposals=100, threshold=0.5
        )
        for device in ("cpu", "cuda")
    }
    assert len(found["cpu"]) == len(found["cuda"]) > 10
    best = iou(found["cpu"].boxes[:, None], found["cuda"].boxes[None]).amax(1)
    assert float((best > 0.95).float().mean()) >= 0.95


@pytest.mark.parametrize(
    ("precision", "same"), [("fp32", 0.98), ("bf16", 0.95)], ids=["fp32", "bf16"]
)
def test_a_compiled_and_recorded_network_finds_them_too(precision: Precision, same: float) -> None:
    coins = np.ascontiguousarray(data.coins()[::2, ::2])
    plain = DiffusionInst.from_pretrained("nano-nuclei", device="cuda")
    fast = plain.optimize(precision, compile_network=True)
    asked: dict[str, Any] = {"steps": 2, "proposals": 100, "threshold": 0.5}
    with warnings.catch_warnings():
        for failure in ("not compiled", ".*not recorded", "the RoI kernel"):
            warnings.filterwarnings("error", failure)
        runs = [fast.predict(image, **asked) for image in (coins, coins[::-1].copy(), coins)]
    wanted = plain.predict(coins, **asked)
    for found in (runs[0], runs[2]):
        best = iou(wanted.boxes[:, None], found.boxes[None]).amax(1)
        assert float((best > same).float().mean()) >= 0.95
    assert runs[1] != runs[0]  # a recording is made of the second, and read anew by the third


@pytest.mark.parametrize("compile_network", [False, True])
def test_images_that_travel_ahead_are_the_same(compile_network: bool) -> None:
    """Some of them while a graph of others is recorded."""
    plain = DiffusionInst.from_preset("tiny", device="cuda")
    model = plain.optimize("fp32", compile_network=compile_network)
    generator = np.random.default_rng(0)
    sizes = [(60 + 8 * (i % 6), 90) for i in range(80)]
    images = [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for _ in range(3):
        together = model.predict(list(images), proposals=8, threshold=0.0)
    for image, found in zip(images, together, strict=True):
        alone = plain.predict(image, proposals=8, threshold=0.0)
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-3, atol=0.05)


def test_recordings_share_their_memory() -> None:
    model = DiffusionInst.from_preset("r50-coco", device="cuda")
    fast = model.optimize("fp32", compile_network=True)
    images = [np.zeros((side, 800, 3), np.uint8) for side in (800, 768, 736)]
    reserved = []
    for image in images:
        for _ in range(3):
            fast.predict(image)
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2] < 1.5 * reserved[0]


def test_the_second_gpu_is_as_good() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    coins = np.ascontiguousarray(data.coins()[::2, ::2])
    found = []
    for device in ("cuda:0", "cuda:1"):
        model = DiffusionInst.from_pretrained("nano-nuclei", device=device)
        fast = model.optimize("fp32", compile_network=True)
        found += [fast.predict(coins, proposals=100, threshold=0.5) for _ in range(3)]
    for other in found[1:]:
        best = iou(found[0].boxes[:, None], other.boxes[None]).amax(1)
        assert float((best > 0.95).float().mean()) >= 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_roi_kernel_equals_the_weighted_gather(dtype: torch.dtype) -> None:
    pytest.importorskip("triton", reason="no Triton for this platform")
    from diffinst.kernels.roi_triton import pool_on_gpu

    device = torch.device("cuda")
    maps = [torch.randn(2, 256, s, s, device=device, dtype=dtype) for s in (64, 32, 16, 8)]
    low = torch.rand(2, 50, 2, device=device) * 300 - 30
    boxes = torch.cat([low, low + 2 ** (torch.rand_like(low) * 10 - 2)], -1)
    boxes[0, 0] = torch.nan
    pyramid = Pyramid.of(maps)
    wanted = pool(pyramid, boxes, 7, 2)
    found = pool_by(pool_on_gpu, pyramid, boxes, 7, 2)
    limit = TOLERANCE[dtype]
    torch.testing.assert_close(found, wanted, rtol=limit, atol=limit)
    kernel_pays(device, dtype)  # does not raise; it is the machine's to say which is faster


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_training_step_has_the_same_loss(
    tmp_path_factory: pytest.TempPathFactory, precision: torch.dtype
) -> None:
    split = load_split(make_shapes(tmp_path_factory.mktemp("shapes"), train=2, val=0), "train")
    config = Config.from_preset("tiny")
    stream = TrainStream(split, config)
    batch = collate([stream[0], stream[1]])
    torch.manual_seed(0)
    step = TrainingStep(DiffusionInstNetwork(config.model), Criterion(config.criterion), 30)
    wanted = step(batch.images, batch.targets, batch.draws)
    on_gpu = batch.to("cuda")
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        output = step.to("cuda")(
            on_gpu.images,
            on_gpu.targets,
            on_gpu.draws,
            match=Match.of(wanted.match.owner.to("cuda")),
        )
    output.losses["loss"].backward()
    limit = 1e-3 if precision == torch.float32 else 0.1
    expected = float(wanted.losses["loss"].detach())
    assert float(output.losses["loss"].detach()) == pytest.approx(expected, rel=limit)
