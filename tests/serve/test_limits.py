from __future__ import annotations

from diffinst.serve.limits import Rate


def test_a_bucket_empties_and_fills_again() -> None:
    now = 0.0
    rate = Rate(0.5, 2, clock=lambda: now)
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 2]  # a permit every two seconds
    assert rate.wait("b") == 0  # a bucket of its own
    now = 1.0
    assert rate.wait("a") == 1
    now = 2.0
    assert rate.wait("a") == 0
    now = 1000.0
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 2]  # never more than two at once
