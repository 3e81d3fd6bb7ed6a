"""Does a run come out the same, byte for byte, whatever is killed, and whenever?"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from diffinst.scale.verify import verify_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]
Command = Callable[..., "Popen[str]"]
WORKERS, DRIVERS, ACTORS = 12, 6, 2  # killed, 20 in all


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            continue
    return found + [grandchild for child in found for grandchild in children(child)]


def said(pid: int) -> str:
    """A process's command line; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def finished(driver: Popen[str]) -> bool:
    """Whether it has ended; it may only end well, or where none of its processes could begin."""
    if driver.poll() is None:
        return False
    said = driver.stderr.read() if driver.stderr else ""
    assert driver.returncode == 0 or "could not be started: the process" in said, said
    return True


def test_workers_and_drivers_killed_at_any_moment(
    start: Command,
    write_images: Callable[[Path, int], list[Path]],
    parts: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "in", 24)
    flags = ("--shard-size", 2, "--workers", 2)
    begin = time.monotonic()
    driver = start(tmp_path / "in", tmp_path / "calm", *flags)
    while not finished(driver):
        time.sleep(0.1)
    usual = time.monotonic() - begin
    expected = parts(tmp_path / "calm")
    assert len(expected) == 12

    moments, left = random.Random(0), ["worker"] * WORKERS + ["driver"] * DRIVERS
    moments.shuffle(left)
    runs = 0
    while True:
        runs += 1
        out = tmp_path / f"killed-{runs}"
        driver = start(tmp_path / "in", out, *flags)
        while True:
            if finished(driver):
                if driver.returncode == 0:
                    break
                driver = start(tmp_path / "in", out, *flags)  # all starts in a row were killed
            time.sleep(moments.uniform(0, usual / 4))
            if not left or driver.poll() is not None:
                continue
            workers = [pid for pid in children(driver.pid) if "scale.worker" in said(pid)]
            if left[-1] == "worker" and workers and kill(moments.choice(workers)):
                left.pop()
                print("killed a worker", len(left), "to go", flush=True)
            elif left[-1] == "driver" and kill(driver.pid):
                left.pop()
                print("killed the driver", len(left), "to go", flush=True)
                driver.wait()
                driver = start(tmp_path / "in", out, *flags)
        assert parts(out) == expected
        assert verify_run(out).problems == []
        if not left:
            return


def test_ray_actors_killed_at_any_moment(
    start: Command,
    write_images: Callable[[Path, int], list[Path]],
    parts: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray", reason="kills actors of Ray")
    write_images(tmp_path / "in", 40)
    flags = ("--shard-size", 4, "--workers", 2)
    driver = start(tmp_path / "in", tmp_path / "calm", *flags)
    while not finished(driver):
        time.sleep(0.1)
    killed, out, moments = 0, tmp_path / "ray", random.Random(0)
    driver = start(tmp_path / "in", out, *flags, "--on", "ray")
    while not finished(driver):
        time.sleep(0.2)
        actors = [pid for pid in children(driver.pid) if said(pid).startswith("ray::")]
        actors = [pid for pid in actors if children(pid)]  # it has its process by now
        if killed < ACTORS and actors and (out / "parts").is_dir():
            time.sleep(moments.uniform(0, 2))
            killed += kill(moments.choice(actors))
    assert killed == ACTORS
    assert parts(out) == parts(tmp_path / "calm")
