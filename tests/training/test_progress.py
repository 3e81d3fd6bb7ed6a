"""Does a run say where it stands where nobody can watch a bar?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.config import Config
from diffinst.training import progress
from diffinst.training.fit import fit
from diffinst.training.progress import Progress

Settings = Callable[..., Config]


@pytest.mark.parametrize(("every", "count"), [(0.0, 3), (1e9, 1)])
def test_a_line_now_and_then_and_at_the_end(
    shapes: Path,
    quick: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    every: float,
    count: int,
) -> None:
    monkeypatch.setattr(progress, "EVERY", every)
    fit(shapes, quick(iterations=3, loggers=[]), tmp_path / "run", pretrained=False)
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("iteration ")]
    assert len(lines) == count and lines[-1].startswith("iteration 3 of 3, loss ")
    assert all(line.endswith(" left") for line in lines[:-1]) and "left" not in lines[-1]
    assert "\r" not in out + err and "GPU available" not in out + err
    assert "weights_only" not in out + err and "LeafSpec" not in out + err


def test_who_asks_is_told_values(shapes: Path, quick: Settings, tmp_path: Path) -> None:
    told: list[Progress] = []
    chosen = quick(iterations=3, loggers=[])
    fit(shapes, chosen, tmp_path / "run", pretrained=False, progress=told.append)
    last = told[-1]
    assert (last.iteration, last.iterations, last.seconds_left) == (3, 3, 0)
    assert last.shown["loss"] > 0 and last.seconds_each > 0
    assert Progress(2, 10, {}, 0.5).seconds_left == 4
