"""Do the measures of doubt give what can be counted by hand?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def doubt(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("doubt")


def test_auroc_counts_pairs(doubt: ModuleType) -> None:
    right = np.array([True, True, False, False])
    assert doubt.auroc(np.array([0.9, 0.4, 0.5, 0.1]), right) == 0.75  # 3 of 4 pairs
    assert doubt.auroc(np.array([1.0, 1, 1, 1]), right) == 0.5
    assert doubt.auroc(np.array([0.9]), np.array([True])) == 0.5


def test_a_regression_finds_the_sign_on_images_it_has_not_seen(doubt: ModuleType) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    values = {"bad": list(rng.normal(size=400) - 2 * right), "noise": list(rng.random(400))}
    rated = doubt.logistic(values, right, np.arange(400))
    assert doubt.auroc(np.array(values["bad"]), right) < 0.2 < 0.8 < doubt.auroc(rated, right)


def test_rank_correlation_and_errors_up_front(doubt: ModuleType) -> None:
    assert doubt.spearman([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1)
    assert doubt.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert doubt.spearman([1, 1, 1, 1], [4, 3, 2, 1]) == 0
    assert doubt.up_front([0.1, 0.9, 0.2, 0.3], np.array([1.0, 5, 2, 2])) == 0.5
