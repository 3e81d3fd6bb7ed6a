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


RELEASE_TEXT = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
RELEASE: dict[str, Any] = yaml.safe_load(RELEASE_TEXT)["jobs"]


def test_a_tag_is_tested_built_and_tried_before_it_is_published() -> None:
    assert 'tags: ["v*"]' in RELEASE_TEXT and "secrets." not in RELEASE_TEXT
    ran = [step["run"] for step in RELEASE["build"]["steps"] if "run" in step]
    wanted = [*recipe("test"), *recipe("docs"), *recipe("dist")]
    assert [r for r in ran if r in wanted] == wanted
    assert RELEASE["smoke"]["needs"] == "build" and RELEASE["publish"]["needs"] == "smoke"
    promised = JOBS["test"]["strategy"]["matrix"]["python"]
    tried = RELEASE["smoke"]["strategy"]["matrix"]["python"]
    assert tried == [promised[0], promised[-1]]
    assert "run" not in str(RELEASE["publish"]["steps"])  # no code of ours where it may publish


def test_only_the_publishing_job_may_prove_who_it_is() -> None:
    assert RELEASE["publish"]["permissions"] == {"id-token": "write"}
    assert not any("permissions" in job for name, job in RELEASE.items() if name != "publish")


def test_forms_for_issues_are_forms() -> None:
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= form.keys()
            assert all(part["attributes"]["label"] for part in form["body"])
