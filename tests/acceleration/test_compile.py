"""Does a compiled network predict the same at any size, and a machine without a compiler too?"""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from diffinst.acceleration import compile as compile_module
from diffinst.acceleration.compile import what_prevents
from diffinst.inference.predictor import DiffusionInst


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


WHOLE_GRAPHS = """
import numpy as np, torch
from diffinst import DiffusionInst

compiled = []

def whole(graph, inputs):
    compiled.append(graph)
    return graph.forward

model = DiffusionInst.from_preset("tiny")
fast = model.optimize("fp32")
network = fast.network
for part in (network.backbone, network.fpn, network.mask_branch, *network.decoder.stages):
    part.compile(backend=whole, fullgraph=True)
for height, width in ((90, 120), (64, 150), (120, 90), (90, 120)):
    before = len(compiled)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    asked = {"steps": 2, "proposals": 12, "threshold": 0.0}
    wanted, found = model.predict(image, **asked), fast.predict(image, **asked)
    assert len(wanted) == len(found) > 3
    torch.testing.assert_close(wanted.boxes, found.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(wanted.scores, found.scores, rtol=1e-4, atol=1e-4)
assert before == len(compiled) > 0, (before, len(compiled))  # the last size was seen before
"""


def test_stages_and_encoder_are_whole_graphs_that_compute_the_same() -> None:
    """Traced and run without kernels: no compiler, and seconds, not a minute.

    In another process, as the check of shapes in tests puts a function of its own around each.
    """
    command = [sys.executable, "-c", WHOLE_GRAPHS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


OPERATOR = """
import torch
from diffinst.kernels import roi
from diffinst.kernels.roi_triton import SCHEMA
from diffinst.ops import roi_align
from diffinst.structures import Levels, Pyramid

def pool(table, boxes, level, heights, widths, starts, scales, rows, size, sampling):
    levels, shapes = Levels(heights, widths, starts, scales), ((1, rows),)
    pyramid = Pyramid(table.view(len(boxes), rows, -1), shapes, levels)
    return roi_align.pool(pyramid, boxes, size, sampling)

kernel = torch.library.custom_op("test::pool", pool, mutates_args=(), schema=SCHEMA)

@kernel.register_fake
def shape(table, boxes, level, heights, widths, starts, scales, rows, size, sampling):
    return table.new_empty(*boxes.shape[:2], size * size, table.shape[1])

roi.kernel_pays = torch.compiler.assume_constant_result(lambda device, dtype: True)
roi._kernel = lambda: kernel
"""


def test_an_operator_for_roi_features_is_part_of_the_graph() -> None:
    """As GPUs have it, with one that runs here."""
    pytest.importorskip("triton", reason="no Triton for this platform")
    command = [sys.executable, "-c", OPERATOR + WHOLE_GRAPHS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


KERNELS = """
import numpy as np
from diffinst import DiffusionInst

model = DiffusionInst.from_preset("tiny")
fast = model.optimize("fp32", compile_network=True)
image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
asked = {"steps": 2, "proposals": 12, "threshold": 0.0}
wanted, found = model.predict(image, **asked), fast.predict(image, **asked)
assert len(wanted) == len(found) > 3
assert float((wanted.boxes - found.boxes).abs().max()) < 0.01
assert float((wanted.masks != found.masks).float().mean()) < 1e-3
"""


@pytest.mark.slow
def test_real_kernels_compute_the_same() -> None:
    """More than a minute of compiling, in another process for the same reason."""
    reason = what_prevents("cpu")
    if reason is not None:
        pytest.skip(f"nothing can be compiled here: {reason}")
    command = [sys.executable, "-c", KERNELS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_part_is_compiled_and_the_model_it_came_from_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compile_module, "what_prevents", lambda device: None)
    model = DiffusionInst.from_preset("tiny")
    network = model.optimize("fp32", compile_network=True).network
    for name in ("backbone", "fpn", "mask_branch", "decoder.stages.0", "decoder.stages.1"):
        assert network.get_submodule(name)._compiled_call_impl is not None
        assert model.network.get_submodule(name)._compiled_call_impl is None


def test_without_a_compiler_a_warning_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    what_prevents.cache_clear()
    model = DiffusionInst.from_preset("tiny")
    with pytest.warns(UserWarning, match="^not compiled: RuntimeError: no C\\+\\+ compiler$"):
        fast = model.optimize("fp32", compile_network=True)
    what_prevents.cache_clear()
    assert len(fast.predict(image(40, 50), proposals=4, threshold=0.0)) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.optimize("fp32")
