"""Does what is meant for a person stay off stdout?"""

from __future__ import annotations

import pytest

from diffinst.cli.terminal import progress_bar, progress_lines


def test_the_bar_leaves_stdout_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working") as advance:
        advance(1, 2)
        advance(2, 2)
    captured = capsys.readouterr()
    assert captured.out == "" and "2/2" in captured.err


def test_a_pipe_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("diffinst.cli.terminal.time.monotonic", lambda: now)
    advance = progress_lines("working", lambda count: f"{count} B")
    for done in range(26):
        now = float(done)
        advance(done, 25)
    advance(25, 25)  # once
    assert capsys.readouterr().err.splitlines() == [
        "working 10 B/25 B",
        "working 20 B/25 B",
        "working 25 B/25 B",
    ]
