"""Does a run say how far it is, how fast, and what went wrong?"""

from __future__ import annotations

from diffinst.cli.scale import said
from diffinst.scale.progress import Counter, Progress


def test_images_of_earlier_runs_count_as_done_but_not_for_the_rate() -> None:
    states: list[Progress] = []
    counter = Counter(10, 4, states.append)
    counter.count(1, 0, 3)
    counter.count(2, 1, 0)
    assert [(s.done, s.total, s.errors) for s in states] == [(5, 10, 0), (7, 10, 1)]
    assert counter.instances == 3 and counter.done == 3
    last = states[-1]
    assert last.left is not None and abs(last.left * last.rate - 3) < 1e-6  # images to go


def test_it_reads_like_this() -> None:
    assert said(Progress(5, 10, 2, 1.25, 4.0)) == "5/10, 1.2 images/s, 0:00:04 left, 2 errors"
    assert said(Progress(0, 9, 0, 0.0, None)) == "0/9, 0.0 images/s"
    assert said(Progress(1, 9, 0, 0.1, 90061.0)) == "1/9, 0.1 images/s, 1 d 1 h left"
