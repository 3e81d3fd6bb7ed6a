"""Is a run that does not fit told what to lower, and nothing else taken for that?"""

from __future__ import annotations

import pytest
import torch

from diffinst.config import Config
from diffinst.io.out_of_memory import OutOfMemory, explained
from diffinst.training.advice import advice

# a crop, the whole map, float32, frozen norms, the whole batch at once: everything can be lowered
PAPER = Config.from_preset("r50-coco").updated(
    train={"accumulate": 1, "activation_checkpointing": False}, criterion={"mask_chunk": None}
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_says_what_to_lower(error: Exception) -> None:
    said = pytest.raises(MemoryError, match=r"^out of memory while training: ")
    with said as caught, explained("training", lambda: advice(PAPER)):
        raise error
    assert caught.value.__cause__ is error
    for field in (
        "train.accumulate (is 1; same result, a smaller part of the batch of 32",
        "train.activation_checkpointing",
        "criterion.mask_chunk",
        "train.precision to bf16",
        "augment.short_sides (up to 800)",
        "augment.crop_range (up to 600)",
        "train.proposals (is 500)",
    ):
        assert field in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes (2, 3) and (4,)"), ValueError("memory")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained("training", lambda: advice(PAPER)):
        raise error
    assert caught.value is error
    with explained("training", lambda: advice(PAPER)):
        pass


def test_what_was_explained_inside_passes() -> None:
    inner = explained("predicting", lambda: "lower proposals")
    outer = explained("training", lambda: advice(PAPER))
    said = pytest.raises(OutOfMemory, match=r"^out of memory while predicting: lower proposals$")
    with said, outer, inner:
        raise MemoryError


def test_real_memory_that_cannot_be_had() -> None:
    with (
        pytest.raises(MemoryError, match=r"train\.accumulate"),
        explained("training", lambda: advice(PAPER)),
    ):
        torch.empty(2**48)


@pytest.mark.parametrize(
    ("part", "values", "field"),
    [
        ("train", {"accumulate": 32}, "accumulate"),  # an image at a time already
        ("train", {"activation_checkpointing": True}, "activation_checkpointing"),
        ("model", {"backbone": {"norm": "train"}}, "activation_checkpointing"),  # would be refused
        ("criterion", {"mask_chunk": 64}, "mask_chunk"),
        ("model", {"filters": {"evaluate": "grid"}}, "mask_chunk"),
        ("train", {"precision": "bf16"}, "precision"),
        ("augment", {"short_sides": []}, "short_sides"),
        ("augment", {"crop_probability": 0.0}, "crop_range"),
    ],
)
def test_what_is_done_already_is_not_advised(
    part: str, values: dict[str, object], field: str
) -> None:
    assert field in advice(PAPER)
    less = advice(PAPER.updated(**{part: values}))
    assert field not in less and "train.proposals" in less
    assert less.count("; or ") == advice(PAPER).count("; or ") - 1
