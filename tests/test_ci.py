"""Does CI on the public host run what the Makefile runs, on what pyproject.toml promises?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def recipe(target: str) -> list[str]:
    """The lines of a target as they run in an environment that is already there."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert found is not None
    parallel = re.search(r"^PARALLEL := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert parallel is not None
    lines = found[1].replace("$(BIN)/", "").replace("$(PARALLEL)", parallel[1])
    return [line.strip() for line in lines.splitlines()]


def test_every_python_promised_is_tested_on_every_system() -> None:
    matrix = JOBS["test"]["strategy"]["matrix"]
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert matrix["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in PYPROJECT
    systems = {name.partition("-")[0] for name in matrix["os"]}
    assert systems == {"ubuntu", "macos", "windows"}


def test_the_oldest_python_checks_and_has_the_oldest_releases() -> None:
    lowest = JOBS["test"]["strategy"]["matrix"]["python"][0]
    for job in ("check", "oldest"):
        (setup,) = [s for s in JOBS[job]["steps"] if "setup-python" in s.get("uses", "")]
        assert setup["with"]["python-version"] == lowest
    assert "uv pip install --resolution lowest-direct -e ." in commands("oldest")


def test_every_dependency_names_its_oldest_release() -> None:
    block = PYPROJECT.partition("dependencies = [")[2].partition("\n]")[0]
    named = re.findall(r'^    "(.*?)"', block, flags=re.MULTILINE)
    assert len(named) > 10 and all(re.fullmatch(r"[a-z-]+>=[\d.]+", n) for n in named), named


@pytest.mark.parametrize(
    ("job", "targets"), [("check", ["lint", "type"]), ("test", ["test"]), ("oldest", ["test"])]
)
def test_commands_are_those_of_the_makefile(job: str, targets: list[str]) -> None:
    wanted = [line for target in targets for line in recipe(target)]
    assert [c for c in commands(job) if " install " not in c] == wanted
    (extras,) = re.findall(r"install\.py '(.*)'", MAKEFILE)
    assert any(c.endswith(f' -e "{extras}"') for c in commands(job))


def test_actions_are_pinned_pip_is_cached_and_no_secret_is_read() -> None:
    used = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action) for action in used)
    assert TEXT.count("cache: pip") == TEXT.count("actions/setup-python@") == len(JOBS)
    assert "secrets." not in TEXT and "permissions:\n  contents: read" in TEXT
