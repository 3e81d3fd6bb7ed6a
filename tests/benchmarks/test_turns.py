"""Commands in turns: what is stopped stands still, what is left behind is ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

COUNT = """
import sys, time
for i in range(10**6):
    open(sys.argv[1], "a").write(".")
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def turns(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("turns")


def work_until_it_counts(worker: object, counter: Path) -> None:
    while not counter.exists():
        worker.work(0.1)  # type: ignore[attr-defined]


def test_between_turns_a_worker_stands_still(turns: ModuleType, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    with turns.Worker([sys.executable, "-c", COUNT, str(counter)], tmp_path) as worker:
        work_until_it_counts(worker, counter)
        time.sleep(0.1)  # the last write
        before, seconds = counter.stat().st_size, worker.seconds
        time.sleep(0.3)
        assert counter.stat().st_size == before
        assert worker.seconds == seconds
        while counter.stat().st_size == before:
            worker.work(0.1)
        assert worker.seconds > seconds


def test_a_stopped_worker_is_ended_when_its_block_is_left(
    turns: ModuleType, tmp_path: Path
) -> None:
    counter = tmp_path / "counter"
    with turns.Worker([sys.executable, "-c", COUNT, str(counter)], tmp_path) as worker:
        work_until_it_counts(worker, counter)
        process = worker._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_finished_worker_knows_what_it_used(turns: ModuleType, tmp_path: Path) -> None:
    with turns.Worker([sys.executable, "-c", "b = bytearray(2**27); print('done')"], tmp_path) as w:
        w.work()
    assert not w.running
    assert (tmp_path / "output.txt").read_text("utf-8") == "done\n"
    used = w.used()
    assert used["peak_gib"] > 2**27 / 2**30  # the bytearray alone
    assert used["seconds"] == w.seconds > 0


def test_a_failure_names_the_output(turns: ModuleType, tmp_path: Path) -> None:
    worker = turns.Worker([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    with pytest.raises(RuntimeError, match=r"output\.txt"):
        worker.work()


def test_a_server_answers_until_it_is_closed(turns: ModuleType) -> None:
    answer = "import sys\nfor line in sys.stdin: print(len(line.strip()), flush=True)"
    server = turns.Server([sys.executable, "-c", answer])
    assert [server.ask("abc"), server.ask("a")] == [3.0, 1.0]
    server._process.stdin.close()
    server._process.wait()
    silent = turns.Server([sys.executable, "-c", "input()"])
    with pytest.raises(RuntimeError, match="gave no answer"):
        silent.ask("abc")
    silent._process.wait()
