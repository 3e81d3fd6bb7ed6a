"""Tables show the best and the worst, and names as they are."""

from __future__ import annotations

import math

import pytest

from diffinst.cli.tables import print_classes
from diffinst.evaluation.report import ClassRow


def test_eval_shows_the_best_and_the_worst_of_many_classes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    undefined = [
        ClassRow(f"[none {i}]", math.nan, math.nan, math.nan, math.nan, 0) for i in range(5)
    ]
    scored = [ClassRow(f"[class {i}]", 1 - i / 100, 1, 1, 1, objects=i) for i in range(50)]
    print_classes([*scored, *undefined], "in per_class.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "box", "AP", "objects"]
    assert lines[1].split() == ["[class", "0]", "1.0000", "1.0000", "1.0000", "0"]
    assert lines[20].startswith("[class 19]") and lines[22].startswith("[class 30]")
    assert lines[21].strip() == "... 15 more in per_class.csv ..." and len(lines) == 42
    assert lines[-1].split() == ["[class", "49]", "0.5100", "1.0000", "1.0000", "49"]
    print_classes(undefined, "")
    assert capsys.readouterr().out.count("-") == 5 * 3
