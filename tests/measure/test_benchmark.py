"""Does the benchmark measure what `predict` does?"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from diffinst import DiffusionInst
from diffinst.measure import benchmark
from diffinst.measure.benchmark import Workload, measure, noise_image, predict, ready
from diffinst.measure.limits import Limits

LIMITS = Limits(1e9, 1e9, 1e9)
WORKLOAD = Workload((64, 96), steps=2, proposals=12, detections=5, batch=2)


def test_the_workload_is_what_runs(tiny: DiffusionInst) -> None:
    fast = ready(tiny, WORKLOAD)
    found = predict(fast, [noise_image((64, 96))])
    assert fast.encode(noise_image((64, 96))).encoded.sizes == ((64, 96),)
    assert [len(f) for f in found] == [5] and found[0].masks.shape == (5, 64, 96)
    sampler = fast.config.sampler
    assert (sampler.steps, sampler.proposals, fast.precision) == (2, 12, "fp32")


def test_images_repeat_and_have_contrast() -> None:
    one = noise_image((33, 40), 1)
    assert one.shape == (33, 40, 3) and one.dtype == np.uint8 and one.std() > 20
    assert np.array_equal(one, noise_image((33, 40), 1))
    assert not np.array_equal(one, noise_image((33, 40), 2))
    assert noise_image((1, 1)).shape == (1, 1, 3)


def test_a_measurement_is_whole(tiny: DiffusionInst) -> None:
    found = measure(tiny, WORKLOAD, LIMITS, rounds=3)
    assert len(found.seconds) == 3 and min(found.seconds) > 0
    assert found.median == sorted(found.seconds)[1]
    assert {"load", "backbone", "sampler", "masks in boxes"} <= found.parts.keys()
    assert found.floor == pytest.approx((found.work.convolution + found.work.matmul) / 1e9)
    assert json.loads(json.dumps(found.as_dict()))["workload"]["batch"] == 2


def test_a_second_step_costs_a_decoder_pass_and_nothing_else(tiny: DiffusionInst) -> None:
    works = [measure(tiny, Workload((64, 96), s, 12, 5), LIMITS, rounds=1).work for s in (1, 2, 3)]
    assert works[0].convolution == works[1].convolution == works[2].convolution > 0
    first, second = (works[i + 1].matmul - works[i].matmul for i in (0, 1))
    assert first == pytest.approx(second, rel=1e-3)  # masks of other windows are drawn
    assert first > 0.9 * works[0].matmul


def test_work_grows_linearly_with_proposals_but_for_attention(tiny: DiffusionInst) -> None:
    works = [
        measure(tiny, Workload((64, 96), 1, n, 5), LIMITS, rounds=1).work.matmul
        for n in (20, 40, 60)
    ]
    assert works[2] - works[1] == pytest.approx(works[1] - works[0], rel=0.02)


def test_memory_is_that_of_another_process(tiny: DiffusionInst) -> None:
    ballast = torch.ones(2**29, dtype=torch.uint8)  # half a GiB that is not the prediction's
    found = benchmark.with_memory(tiny, measure(tiny, WORKLOAD, LIMITS, rounds=1))
    assert found.peak_gib is not None and found.idle_gib is not None
    assert 0.05 < found.idle_gib <= found.peak_gib
    assert found.peak_gib < benchmark.peak_gib(torch.device("cpu"))
    del ballast
