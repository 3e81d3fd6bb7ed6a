"""Does what is meant for a person stay off stdout?"""

from __future__ import annotations

import pytest

from diffinst.cli.terminal import progress_bar


def test_the_bar_leaves_stdout_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working") as advance:
        advance(1, 2)
        advance(2, 2)
    captured = capsys.readouterr()
    assert captured.out == "" and "2/2" in captured.err
