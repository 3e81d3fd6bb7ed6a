"""Builds the site from the Markdown of the repository: `make docs` runs it.

The same files are read on the code host and on the site, so their links name files of the
repository. Here they are gathered into build/site, where every link leads to a page: README.md is
index.md, docs/X.md is X.md, and any other file that is linked to comes below repository/, sources
as pages that show them. Two pages are made: the commands by cyclopts, the Python reference from
the docstrings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).resolve().parents[1]
OTHERS = "repository"  # what is neither the README nor in docs/
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?P<after>\))")
FENCE = re.compile(r"(^```.*?^```[ \t]*$)", flags=re.DOTALL | re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", flags=re.DOTALL)
SHOWN = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}
PYTHON = {  # what people call; each with what its docstring says
    "Models and results": ["diffinst.DiffusionInst", "diffinst.Instances"],
    "An image, encoded once": ["diffinst.inference.image.EncodedImage"],
    "Training and evaluation": ["diffinst.train", "diffinst.evaluate"],
    "Settings": ["diffinst.Options", "diffinst.Reading", "diffinst.Start", "diffinst.Config"],
}


class BrokenLink(Exception):
    """A page names a file that is not there."""


def page_of(file: PurePosixPath) -> PurePosixPath:
    """Where a file of the repository lies on the site."""
    if file == PurePosixPath("README.md"):
        return PurePosixPath("index.md")
    if file.parts[0] == "docs":
        return PurePosixPath(*file.parts[1:])
    place = PurePosixPath(OTHERS, file)
    shown = file.suffix in SHOWN or file.suffix == ".ipynb"
    return place.with_name(f"{place.name}.md") if shown else place


def file_of(target: str, page: PurePosixPath, root: Path) -> PurePosixPath:
    """The file of the repository that a link of a page names; of a folder, its README."""
    path = PurePosixPath(os.path.normpath(page.parent / target))
    if (root / path).is_dir():
        path /= "README.md"
    if path.parts[0] == ".." or not (root / path).is_file():
        raise BrokenLink(f"{page}: the link to {target} leads to no file of the repository")
    return path


def for_the_site(text: str, page: PurePosixPath, root: Path) -> tuple[str, set[PurePosixPath]]:
    """A page with its links as the site has them, and the files that they name."""
    named: set[PurePosixPath] = set()

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if re.match(r"[a-z]+:", target):  # https:, mailto:
            return match[0]
        file = file_of(target, page, root)
        named.add(file)
        place = os.path.relpath(page_of(file), page_of(page).parent)
        return f"{match['before']}{place}{match['anchor'] or ''}{match['after']}"

    text = FRONT_MATTER.sub("", text)  # a model card's is for the hub
    parts = FENCE.split(text)  # every second one is code, which stays as it is
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts), named


def notebook_page(text: str) -> str:
    """The cells of a notebook as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    shown = (
        source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells
    )
    return "\n\n".join(shown) + "\n"


def gather(root: Path, pages: list[PurePosixPath], folder: Path) -> None:
    """Writes the pages and all that they lead to into a folder."""
    waiting, done = list(pages), set(pages)
    while waiting:
        file = waiting.pop()
        place = folder / page_of(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".md", ".ipynb"):
            text = (root / file).read_text("utf-8")
            text = notebook_page(text) if file.suffix == ".ipynb" else text
            text, named = for_the_site(text, file, root)
            place.write_text(text, "utf-8")
            waiting += sorted(named - done)
            done |= named
        elif file.suffix in SHOWN:
            code = (root / file).read_text("utf-8").rstrip("\n")
            place.write_text(f"# {file}\n\n````{SHOWN[file.suffix]}\n{code}\n````\n", "utf-8")
        else:
            shutil.copyfile(root / file, place)


def commands_page() -> str:
    """Every command with its flags, as the commands themselves have them."""
    from diffinst.cli import app

    text = app.generate_docs(output_format="markdown", heading_level=1)
    text = re.sub(r"^## Table of Contents\n\n(- .*\n)+\n", "", text, flags=re.MULTILINE)
    return text.replace("# diffinst\n", "# Commands\n", 1)


def python_page() -> str:
    """The names that mkdocstrings fills in."""
    sections = (
        f"## {title}\n\n"
        + "\n\n".join(f"::: {name}\n    options: {{heading_level: 3}}" for name in names)
        for title, names in PYTHON.items()
    )
    return (
        "# Python\n\nFrom the docstrings. `diffinst` loads each name on first use.\n\n"
        + "\n\n".join(sections)
    )


def paths_in(nav: list[object]) -> Iterator[str]:
    """The pages that a navigation names."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from paths_in(value) if isinstance(value, list) else [str(value)]


def present(nav: list[object], folder: Path) -> list[object]:
    """The navigation without pages that are not there, and without sections that hold none."""
    kept: list[object] = []
    for entry in nav:
        assert isinstance(entry, dict), f"mkdocs.yml: nav: {entry} has no title"
        ((title, value),) = entry.items()
        if isinstance(value, list):
            if inner := present(value, folder):
                kept.append({title: inner})
        elif (folder / value).is_file():
            kept.append(entry)
    return kept


def configuration(root: Path, folder: Path) -> dict[str, object]:
    """mkdocs.yml for what was gathered: pages of docs/ that it does not name are added."""
    text = (root / "mkdocs.yml").read_text("utf-8")
    text = text.replace("paths: [src]", f"paths: [{json.dumps(str(root / 'src'))}]")
    config: dict[str, object] = yaml.safe_load(text)
    nav = config["nav"]
    assert isinstance(nav, list)
    named = set(paths_in(nav))
    more = [path.name for path in sorted(folder.glob("*.md")) if path.name not in named]
    titled = [{(folder / n).read_text("utf-8").partition("\n")[0].lstrip("# "): n} for n in more]
    nav = present(nav, folder) + ([{"More": titled}] if titled else [])
    return config | {"nav": nav, "docs_dir": folder.name, "site_dir": "site"}


def main() -> int:
    """Gather and build; the exit code is the builder's, which fails on every warning."""
    build, site = ROOT / "build" / "site", ROOT / "site"
    shutil.rmtree(build, ignore_errors=True)
    folder = build / "docs"
    pages = [PurePosixPath("README.md"), PurePosixPath("CHANGELOG.md")]
    pages += [PurePosixPath("docs", p.name) for p in sorted((ROOT / "docs").glob("*.md"))]
    pages.append(PurePosixPath("docs/images/favicon.svg"))
    try:
        gather(ROOT, pages, folder)
    except BrokenLink as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (folder / "commands.md").write_text(commands_page(), "utf-8")
    (folder / "api.md").write_text(python_page(), "utf-8")
    config = configuration(ROOT, folder)
    (build / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    code = subprocess.run(command, cwd=build, check=False).returncode
    if code == 0:
        shutil.rmtree(site, ignore_errors=True)
        (build / "site").rename(site)
        print(f"open {site.relative_to(ROOT) / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
