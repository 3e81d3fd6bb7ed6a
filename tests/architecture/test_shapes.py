"""Are the shapes and dtypes that signatures promise really checked while tests run?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from diffinst.diffusion.schedule import cosine_schedule
from diffinst.models.decoder import sinusoidal_embedding
from diffinst.ops.boxes import apply_deltas, iou
from diffinst.ops.masks import sample_targets
from diffinst.ops.roi_align import pool
from diffinst.structures import Pyramid
from diffinst.training.matcher import dynamic_k_match

checked = pytest.mark.skipif(
    os.environ.get("DIFFINST_TYPECHECK") == "0", reason="DIFFINST_TYPECHECK=0 turns the check off"
)


@checked
def test_wrong_number_of_coordinates_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="apply_deltas"):
        apply_deltas(torch.zeros(2, 5), torch.zeros(2, 5))


@checked
def test_sizes_that_disagree_are_refused() -> None:
    cost, overlap = torch.zeros(1, 3, 2), torch.zeros(1, 3, 1)  # the sum over k would broadcast
    with pytest.raises(TypeCheckError, match="overlap"):
        dynamic_k_match(cost, overlap, torch.ones(1, 2, dtype=torch.bool))


@checked
def test_wrong_dtypes_are_refused() -> None:
    with pytest.raises(TypeCheckError, match="masks"):
        sample_targets(torch.ones(1, 4, 4), (8, 8))
    with pytest.raises(TypeCheckError, match="sinusoidal_embedding"):
        sinusoidal_embedding(torch.tensor([0.5]), 8)


@checked
def test_boxes_of_one_image_without_batch_are_refused() -> None:
    with pytest.raises(TypeCheckError, match="boxes"):
        pool(Pyramid.of([torch.zeros(1, 2, 4, 4)]), torch.zeros(3, 4), 7, 2)


@checked
def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="noise"):  # it would broadcast
        cosine_schedule(10).add_noise(
            torch.zeros(2, 5, 4), torch.zeros(2, 1, 4), torch.tensor([0, 1])
        )


@checked
def test_boxes_that_broadcast_are_accepted() -> None:
    assert iou(torch.zeros(3, 1, 4), torch.zeros(1, 2, 4)).shape == (3, 2)
    with pytest.raises(TypeCheckError, match="iou"):
        iou(torch.zeros(3, 4), torch.zeros(2, 4))


def test_nothing_is_checked_outside_tests() -> None:
    code = """
import sys, torch
from diffinst.ops.boxes import iou
assert iou(torch.zeros(2, 4).long(), torch.zeros(2, 4).long()).tolist() == [0, 0]
assert not hasattr(iou, "__wrapped__")
print("beartype" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "False\n"
