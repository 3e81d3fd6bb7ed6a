"""Does `make` set up once, say how far it is, go on after an interrupt, and run what it says?"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = '''
"""Stands in for pip: says what pip says, as slowly, and installs nothing."""
import os, sys, time

if "--version" in sys.argv:
    sys.exit(0)
with open(os.environ["CALLS"], "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("Obtaining file:///somewhere/diffinst")
print("Collecting torch>=2.7 (from diffinst==0.1.0)")
print("  Downloading torch-2.9.0-cp311-cp311-manylinux_2_28_x86_64.whl (888.1 MB)", flush=True)
time.sleep(0.2)
print("Collecting pyyaml (from diffinst==0.1.0)")
print("  Using cached PyYAML-6.0.1-cp311-cp311-linux_x86_64.whl.metadata (2.1 kB)")
print("Using cached PyYAML-6.0.1-cp311-cp311-linux_x86_64.whl (757 kB)")
if os.environ.get("FAILS"):
    print("ERROR: No space left on device", file=sys.stderr)
    sys.exit(3)
print("Installing collected packages: torch, PyYAML, diffinst", flush=True)
time.sleep(0.2)
print("Successfully installed diffinst-0.1.0")
'''

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or os.name == "nt", reason="needs make and a shell"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile in a folder whose .venv has this Python and the stand-in for pip."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "stand-in" / "pip" / "__main__.py"
    module.parent.mkdir(parents=True)
    module.write_text(PIP)
    module.with_name("__init__.py").touch()  # else the real one would be found first
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "calls").touch()
    return tmp_path


def make(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "stand-in"), "CALLS": "calls"}
    environment |= {"DIFFINST_CPU_INDEX": "", **more}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # these tests may themselves be made
        environment.pop(name, None)
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_the_set_up_says_what_it_installs_and_how_far_it_is(checkout: Path) -> None:
    done = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    begin, torch, unpacking, end = done.stdout.splitlines()
    assert begin.startswith("installing diffinst and its tools into ") and "7 GB" in begin
    assert torch == "  0:00 1 packages, 888 MB; torch (888 MB)"
    assert unpacking == "  0:00 2 packages, 889 MB; unpacking 3 packages, some minutes"
    assert end == "ready"
    flags = "--disable-pip-version-check --progress-bar off -e .[dev,demo]"
    assert calls(checkout) == [f"install {flags}"]


needs_no_gpu = pytest.mark.skipif(
    sys.platform != "linux"
    or shutil.which("nvidia-smi") is not None
    or Path("/proc/driver/nvidia/version").exists(),
    reason="the CPU index is asked on Linux without a GPU",
)


def cpu_index(checkout: Path, python: str) -> None:
    """A folder as an index, with one CPU build of torch."""
    page = checkout / "index" / "torch" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="/x/torch-2.9.0%2Bcpu-{python}-{python}-linux_x86_64.whl">torch</a>')


class Silent(http.server.SimpleHTTPRequestHandler):
    """Writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def served(checkout: Path) -> Iterator[str]:
    """The address of a server of the checkout's folder `index`."""
    handler = functools.partial(Silent, directory=str(checkout / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


THIS = f"cp{sys.version_info[0]}{sys.version_info[1]}"


@needs_no_gpu
@pytest.mark.parametrize(("python", "taken"), [(THIS, True), ("cp27", False)])
def test_cpu_builds_are_taken_where_there_is_no_gpu(
    checkout: Path, served: str, python: str, taken: bool
) -> None:
    cpu_index(checkout, python)
    done = make(checkout, "setup", DIFFINST_CPU_INDEX=served, no_proxy="*")
    assert done.returncode == 0, done.stderr
    assert ("torch comes without CUDA" in done.stdout) == taken
    assert calls(checkout)[0].endswith(f" --extra-index-url {served}") == taken


@needs_no_gpu
def test_with_a_gpu_or_without_the_cpu_index_all_goes_on(checkout: Path, served: str) -> None:
    cpu_index(checkout, THIS)
    driver = checkout / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    path = f"{driver.parent}{os.pathsep}{os.environ['PATH']}"
    done = make(checkout, "setup", DIFFINST_CPU_INDEX=served, PATH=path, no_proxy="*")
    assert done.returncode == 0 and "7 GB" in done.stdout
    (checkout / ".venv" / ".installed").unlink()
    done = make(checkout, "setup", DIFFINST_CPU_INDEX=f"{served}/gone", no_proxy="*")
    assert done.returncode == 0 and "no CPU builds of torch from " in done.stdout
    assert not any("--extra-index-url" in call for call in calls(checkout))


def test_it_is_done_once_and_again_for_other_requirements(checkout: Path) -> None:
    assert make(checkout, "setup").returncode == 0
    again = make(checkout, "setup")
    assert again.returncode == 0 and "install" not in again.stdout
    assert len(calls(checkout)) == 1
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / "pyproject.toml", (stamp + 10, stamp + 10))
    assert make(checkout, "setup").returncode == 0
    assert len(calls(checkout)) == 2


def test_a_failed_set_up_is_tried_again(checkout: Path) -> None:
    failed = make(checkout, "setup", FAILS="1")
    assert failed.returncode != 0 and "ready" not in failed.stdout
    assert "No space left on device" in failed.stderr
    assert "pip failed (3); its words are above. Run it again." in failed.stderr
    assert not (checkout / ".venv" / ".installed").exists()
    assert make(checkout, "setup").stdout.endswith("ready\n")
    assert len(calls(checkout)) == 2


def test_a_python_too_old_is_refused(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    (checkout / "old").write_text("#!/bin/sh\necho Python 3.9.1\nexit 1\n")
    (checkout / "old").chmod(0o755)
    refused = make(checkout, "setup", "PYTHON=./old")
    assert refused.returncode != 0
    assert "needs Python 3.10 or newer, but './old' is older" in refused.stderr
    assert "make setup PYTHON=python3.11" in refused.stderr


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", ".venv/bin/python examples/demo.py"),
        ("test", ".venv/bin/python -m pytest -n 2 --dist worksteal"),
        ("test-all", '.venv/bin/python -m pytest -n 2 --dist worksteal -m ""'),
        ("lint", ".venv/bin/ruff format --check ."),
        ("type", ".venv/bin/mypy"),
        ("bench", ".venv/bin/python benchmarks/speed.py"),
        ("docs", ".venv/bin/python .ci/docs.py"),
        ("dist", ".venv/bin/python .ci/dist.py"),
    ],
)
def test_targets_set_up_first_and_run_what_they_say(
    checkout: Path, target: str, command: str
) -> None:
    lines = make(checkout, "-n", target).stdout.splitlines()
    installs = next(i for i, line in enumerate(lines) if ".ci/install.py" in line)
    assert command in lines[installs:]


def test_help_lists_the_targets(checkout: Path) -> None:
    listed = [line.split()[1] for line in make(checkout).stdout.splitlines()]
    wanted = ["help", "setup", "demo", "test", "test-all", "lint", "type", "bench"]
    assert listed == [*wanted, "docs", "dist", "clean"] and calls(checkout) == []
