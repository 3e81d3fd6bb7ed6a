"""Is the next item made while one is in use, never earlier, and do errors arrive in their turn?"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from diffinst.acceleration.feed import ahead, fed


def test_one_is_made_while_one_is_in_use() -> None:
    begun = [threading.Event() for _ in range(4)]
    main = threading.get_ident()

    def make(i: int) -> int:
        assert threading.get_ident() != main
        begun[i].set()
        return i * i

    for i, made in enumerate(ahead(range(4), make)):
        assert made == i * i
        if i < 3:
            assert begun[i + 1].wait(10)  # without asking for it
        assert not any(event.is_set() for event in begun[i + 2 :])


def test_nothing_to_make() -> None:
    assert list(ahead((), str)) == []


def test_an_error_comes_when_its_item_is_asked_for() -> None:
    def make(i: int) -> float:
        return 1 / i

    made = ahead([1, 0, 2], make)
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_images_on_the_cpu_are_views() -> None:
    images = [np.full((4, 5, 3), i, np.uint8) for i in range(3)]
    given = [images[:2], images[2:]]
    fed_batches = list(fed(given, lambda batch: batch, torch.device("cpu")))
    assert [batch for batch, _ in fed_batches] == given
    chunks = [tensors for _, tensors in fed_batches]
    assert [[t.shape for t in chunk] for chunk in chunks] == [[(3, 4, 5)] * 2, [(3, 4, 5)]]
    images[2][0, 0] = 9
    assert chunks[1][0][:, 0, 0].tolist() == [9, 9, 9]
