"""Every import inside the package points down the layers, imports inside functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "diffinst"
SOURCE = Path(__file__).resolve().parents[2] / "src" / PACKAGE

# Highest first; those on one line are siblings and never import each other.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"serve", "scale", "adapters"},
    {"training"},
    {"evaluation", "export", "measure"},
    {"inference"},
    {"acceleration"},
    {"weights"},
    {"models", "diffusion", "results"},
    {"kernels"},
    {"ops"},
    {"download"},
    {"datasets"},
    {"io"},
    {"structures"},
    {"config"},
)
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}
FACE = ""  # diffinst/__init__.py, above all layers
FILE_FOLDERS = {"presets"}  # read as files: nothing imports them, they import nothing


def layer_of(module: str) -> str:
    """`diffinst.ops.boxes` -> `ops`; the package itself -> FACE."""
    return module.split(".")[1] if "." in module else FACE


def module_name(file: Path, package_dir: Path) -> str:
    parts = [PACKAGE, *file.relative_to(package_dir).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def from_targets(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """The modules that a `from ... import ...` written in `package` reaches."""
    if node.level:
        parent = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parent, *([node.module] if node.module else [])])
    else:
        base = node.module or ""
    if base != PACKAGE:
        yield base
        return
    for alias in node.names:  # `from diffinst import ops` is a module, `Config` a name of the face
        is_face = alias.name == "*" or alias.name[0].isupper() or alias.name.startswith("__")
        yield PACKAGE if is_face else f"{PACKAGE}.{alias.name}"


def imported_modules(file: Path, package_dir: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each module of the package that the file imports, at any depth."""
    module = module_name(file, package_dir)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        targets: list[str] = []
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom():
                targets = list(from_targets(node, package))
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                targets = [name]
        for target in targets:
            if target == PACKAGE or target.startswith(f"{PACKAGE}."):
                yield node.lineno, target


def may_import(importer: str, imported: str) -> bool:
    if importer in (FACE, imported):
        return True
    if importer not in DEPTH or imported not in DEPTH:  # the face, or a module without a layer
        return False
    return DEPTH[importer] < DEPTH[imported]


def violations(package_dir: Path) -> list[str]:
    found = []
    for file in sorted(package_dir.rglob("*.py")):
        importer = layer_of(module_name(file, package_dir))
        for line, target in imported_modules(file, package_dir):
            if not may_import(importer, layer_of(target)):
                where = file.relative_to(package_dir)
                found.append(f"{where}:{line}: {importer} must not import {target}")
    return found


def test_every_import_points_down_the_layers() -> None:
    assert violations(SOURCE) == []


def test_every_module_has_a_layer() -> None:
    names = {layer_of(module_name(file, SOURCE)) for file in SOURCE.rglob("*.py")}
    assert names - {FACE} - FILE_FOLDERS <= set(DEPTH), "give the new module a place in LAYERS"
    assert "config" in names  # the folder was really read


@pytest.mark.parametrize(
    ("file", "code", "target"),
    [
        pytest.param("ops/boxes.py", "import diffinst.models.fpn as f", "models.fpn", id="plain"),
        pytest.param("io/a.py", "from diffinst.ops.boxes import iou", "ops.boxes", id="from"),
        pytest.param("io/a.py", "from diffinst import ops", "ops", id="from the package"),
        pytest.param("ops/a.py", "from ..training import fit", "training", id="relative"),
        pytest.param("ops/a.py", "from .. import cli", "cli", id="relative, no module"),
        pytest.param("ops/__init__.py", "from ..models import fpn", "models", id="in __init__"),
        pytest.param("config.py", "from . import structures", "structures", id="top-level module"),
        pytest.param("models/sub/a.py", "from ...data import coco", "data", id="nested package"),
        pytest.param(
            "diffusion/a.py", "def f():\n    import diffinst.models", "models", id="in a function"
        ),
        pytest.param(
            "data/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import diffinst.inference",
            "inference",
            id="sibling, for types",
        ),
        pytest.param(
            "ops/a.py",
            "import importlib\nimportlib.import_module('diffinst.cli')",
            "cli",
            id="by name",
        ),
        pytest.param("cli.py", "import diffinst", "", id="the public face"),
        pytest.param("cli.py", "from diffinst import Config", "", id="a public name"),
        pytest.param("cli.py", "from . import __version__", "", id="the version"),
        pytest.param("cli.py", "from diffinst import misc", "misc", id="a module without layer"),
        pytest.param("config.py", "from diffinst import presets", "presets", id="a file folder"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, file: str, code: str, target: str) -> None:
    plant(tmp_path, file, code)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:{code.count(chr(10)) + 1}: ")
    assert found.endswith(f" must not import {'.'.join(filter(None, [PACKAGE, target]))}")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        pytest.param("cli.py", "from diffinst.config import Config", id="top to bottom"),
        pytest.param("models/fpn.py", "from diffinst.ops import boxes", id="one down"),
        pytest.param("ops/a.py", "from .boxes import iou", id="same layer, relative"),
        pytest.param("ops/a.py", "from . import boxes", id="same layer, no module"),
        pytest.param("ops/__init__.py", "from .boxes import iou", id="same layer, in __init__"),
        pytest.param("ops/a.py", "import torch\nfrom diffinst_extra import cli", id="others"),
        pytest.param("__init__.py", "from diffinst.cli import main", id="the face sees all"),
    ],
)
def test_import_downwards_is_allowed(tmp_path: Path, file: str, code: str) -> None:
    plant(tmp_path, file, code)
    assert violations(tmp_path) == []


def plant(package_dir: Path, file: str, code: str) -> None:
    path = package_dir / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code + "\n", encoding="utf-8")


def test_what_only_some_systems_have_is_imported_where_it_is_used() -> None:
    """`resource` and `fcntl` are missing on Windows: at the top of a file they would end it."""
    missing = {"resource", "fcntl", "termios", "pwd"}
    found = [
        file.relative_to(SOURCE).as_posix()
        for file in sorted(SOURCE.rglob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8"), str(file)).body
        if (isinstance(node, ast.Import) and missing & {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module in missing)
    ]
    assert found == []


def test_no_type_check_is_not_used() -> None:
    """Python 3.10's never ends on an autograd function: it follows every class an attribute is."""
    found = [
        file.relative_to(SOURCE).as_posix()
        for file in sorted(SOURCE.rglob("*.py"))
        if "no_type_check" in file.read_text(encoding="utf-8")
    ]
    assert found == []
