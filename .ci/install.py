"""Installs diffinst and its tools with pip, and says how far it is: `make setup` runs it.

pip itself is either silent or prints some hundred lines. Here a line names the package at hand
every so often, at once where it is a large one; in a terminal the line is renewed each second.
pip keeps what it has downloaded, so another run goes on from there.

On Linux the index of PyPI has torch with 5 GB of CUDA. Where no GPU is, the index of torch's CPU
builds is asked first (`DIFFINST_CPU_INDEX` names another; empty: none); if it does not answer in
some seconds, or has none for this Python, all goes on as if it were not there.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO

EVERY = 15.0  # seconds between two lines that are kept
LARGE = 100.0  # MB; named as soon as it comes
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 5.0  # seconds for an answer of the CPU index, the look-up of its name included
UNITS = {"kB": 0.001, "MB": 1.0, "GB": 1000.0}
FOUND = re.compile(
    r"^\s*(?:Downloading|Using cached) (?:\S*/)?([^-\s]+)\S*(?<!\.metadata) \(([\d.]+) (kB|MB|GB)\)"
)
LAST = re.compile(r"^Installing collected packages: (.*)")


class Progress:
    """What pip has said so far, as one line."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.now = "looking for packages"
        self.packages, self.size = 0, 0.0
        self.large = False

    def read(self, line: str) -> None:
        """Take a line of pip's output."""
        if found := FOUND.match(line):
            size = float(found[2]) * UNITS[found[3]]
            self.packages += 1
            self.size += size
            self.now, self.large = f"{found[1]} ({size:.0f} MB)", size >= LARGE
        elif last := LAST.match(line):
            count = len(last[1].split(", "))
            self.now, self.large = f"unpacking {count} packages, some minutes", True

    def __str__(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        return f"  {minutes}:{seconds:02} {self.packages} packages, {self.size:.0f} MB; {self.now}"


def has_gpu() -> bool:
    """Whether NVIDIA's driver is here."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def cpu_index() -> str | None:
    """The index of torch's CPU builds, if it is needed, answers, and has one for this Python."""
    index = os.environ.get("DIFFINST_CPU_INDEX", CPU_INDEX).rstrip("/")
    if not index or sys.platform != "linux" or has_gpu():
        return None
    pages: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{index}/torch/", timeout=PATIENCE) as answer:
                pages.append(answer.read().decode(errors="replace"))
        except (OSError, ValueError) as error:
            print(f"  no CPU builds of torch from {index} ({error})", flush=True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    this = rf"torch-[\d.]+(\+|%2B)cpu-cp{sys.version_info[0]}{sys.version_info[1]}-"
    return index if pages and re.search(this, pages[0]) else None


def lines_of(stream: IO[str]) -> queue.Queue[str | None]:
    """The lines as they come, then None."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def follow(stream: IO[str]) -> None:
    """Print how far pip is until its output ends."""
    progress, lines = Progress(), lines_of(stream)
    in_place, width, shown = sys.stdout.isatty(), 0, time.monotonic()
    while True:
        try:
            line = lines.get(timeout=1.0)
            if line is None:
                break
            progress.read(line)
        except queue.Empty:
            pass
        if progress.large or time.monotonic() - shown >= EVERY:
            print(f"\r{progress!s:{width}}" if in_place else progress, flush=True)
            progress.large, width, shown = False, 0, time.monotonic()
        elif in_place:
            print(f"\r{progress!s:{width}}", end="", flush=True)
            width = len(str(progress))
    if width:
        print(f"\r{'':{width}}\r", end="", flush=True)


def main(requirement: str) -> int:
    """Install; the exit code is pip's, 130 after an interrupt."""
    index = cpu_index()
    size = (
        "about 2.5 GB: there is no GPU, so torch comes without CUDA"
        if index
        else "about 7 GB with the CUDA builds of torch, which Linux gets, else 2.5 GB"
    )
    print(f"installing diffinst and its tools into {sys.prefix} (once; {size})", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "-e", requirement]
    if index:  # its versions end in +cpu, which is newer than the same without
        command += ["--extra-index-url", index]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as pip:
            assert pip.stdout is not None
            follow(pip.stdout)
    except KeyboardInterrupt:
        print("\ninterrupted; run it again: what is downloaded stays with pip", file=sys.stderr)
        return 130
    if pip.returncode:
        print(f"pip failed ({pip.returncode}); its words are above. Run it again.", file=sys.stderr)
    else:
        print("ready", flush=True)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
