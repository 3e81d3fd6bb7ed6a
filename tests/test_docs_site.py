"""Does every page of the repository come to the site, with links that lead somewhere?"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
import yaml

from diffinst.cli import app

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_of_ci", ROOT / ".ci" / "docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A README, two pages, a source file and a folder with a README of its own."""
    root = tmp_path / "repository"
    files = {
        "README.md": "# Start\n[a](docs/a.md), ![b](docs/images/b.png), [r](recipes/)\n",
        "docs/a.md": "# A\n[s](../src/s.py) [up](../README.md#x) [web](https://example.org)\n",
        "docs/new.md": "# New page\n```md\n[no link](nowhere.md)\n```\n",
        "docs/images/b.png": "",
        "src/s.py": "x = 1\n",
        "recipes/README.md": "---\nlicense: mit\n---\n# Recipes\n[a](../docs/a.md)\n",
        "mkdocs.yml": "nav: [{Start: index.md}, {Later: [{Video: video.md}]}, {A: [{A: a.md}]}]\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_links_lead_to_the_pages_of_the_site(docs: ModuleType, repository: Path) -> None:
    folder = repository / "build" / "docs"
    pages = [PurePosixPath(name) for name in ("README.md", "docs/a.md", "docs/new.md")]
    docs.gather(repository, pages, folder)
    assert (folder / "index.md").read_text() == (
        "# Start\n[a](a.md), ![b](images/b.png), [r](repository/recipes/README.md)\n"
    )
    assert (folder / "a.md").read_text() == (
        "# A\n[s](repository/src/s.py.md) [up](index.md#x) [web](https://example.org)\n"
    )
    assert "[no link](nowhere.md)" in (folder / "new.md").read_text()  # code stays as it is
    recipes = (folder / "repository/recipes/README.md").read_text()
    assert recipes == "# Recipes\n[a](../../a.md)\n"  # without the lines for the hub
    source = (folder / "repository/src/s.py.md").read_text()
    assert source == "# src/s.py\n\n````python\nx = 1\n````\n"
    assert (folder / "images/b.png").is_file()


def test_a_notebook_is_a_page_of_its_cells(docs: ModuleType, repository: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# N\n", "[a](../docs/a.md)"]},
        {"cell_type": "code", "source": ["x = 1"], "outputs": []},
    ]
    (repository / "src" / "n.ipynb").write_text(json.dumps({"cells": cells}))
    docs.gather(repository, [PurePosixPath("src/n.ipynb")], repository / "build")
    text = (repository / "build/repository/src/n.ipynb.md").read_text()
    assert text == "# N\n[a](../../a.md)\n\n```python\nx = 1\n```\n"


def test_pages_may_be_missing_and_new_ones_are_added(docs: ModuleType, repository: Path) -> None:
    folder = repository / "build" / "docs"
    docs.gather(repository, [PurePosixPath("README.md"), PurePosixPath("docs/new.md")], folder)
    nav = docs.configuration(repository, folder)["nav"]
    assert nav == [
        {"Start": "index.md"},
        {"A": [{"A": "a.md"}]},
        {"More": [{"New page": "new.md"}]},
    ]


def test_a_link_to_nothing_is_named(docs: ModuleType, repository: Path) -> None:
    (repository / "docs" / "a.md").write_text("[x](../src/gone.py)")
    with pytest.raises(docs.BrokenLink, match=r"docs/a.md: the link to ../src/gone.py leads to no"):
        docs.gather(repository, [PurePosixPath("docs/a.md")], repository / "build")


def test_every_page_is_named_once_or_comes_on_another_branch(docs: ModuleType) -> None:
    nav = list(docs.paths_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(set(nav)) == len(nav)
    made = {"index.md", "api.md", "commands.md"}
    for name in set(nav) - made:
        file = PurePosixPath(name.removeprefix("repository/"))
        assert docs.page_of(
            file.with_suffix("")
            if ".ipynb" in name
            else file
            if "/" in name
            else PurePosixPath("docs", name)
        ) == PurePosixPath(name)


def test_all_commands_and_public_names_are_in_the_reference(docs: ModuleType) -> None:
    import diffinst

    text = docs.commands_page()
    for command in app:
        if not command.startswith("-"):
            assert f"\n## diffinst {command}\n" in text
    assert "`--train.iterations" in text
    named = {name for names in docs.PYTHON.values() for name in names}
    public = {f"diffinst.{name}" for name in diffinst.__all__ if not name.startswith("_")}
    assert public <= named


class Links(HTMLParser):
    """The targets of a page and what is fetched to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get("href") or values.get("src") or ""
        (self.targets if tag == "a" else self.fetched).append(target)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    root = tmp_path / "checkout"
    for name in ("docs", "src", "recipes", "benchmarks", "examples", ".ci", ".github"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    command = [sys.executable, str(root / ".ci" / "docs.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    pages = sorted((root / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        links = Links(page.read_text())
        assert not [f for f in links.fetched if re.match(r"(https?:)?//", f)], page
        if page.name == "404.html":
            continue  # its links are absolute
        for target in links.targets:
            place = target.partition("#")[0]
            if place and not re.match(r"[a-z]+:", place):
                assert (page.parent / place).exists(), f"{page.name}: {target}"
    api = (root / "site" / "api.html").read_text()
    assert 'id="diffinst.DiffusionInst.predict"' in api and "Steps and proposals are free" in api
