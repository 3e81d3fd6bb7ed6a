"""The public names are the promised ones, resolve, and load torch only when they need it."""

import ast
import subprocess
import sys

import pytest

import diffinst

PUBLIC_NAMES = [
    "Config",
    "DiffusionInst",
    "Instances",
    "Options",
    "Reading",
    "Start",
    "__version__",
    "evaluate",
    "train",
]


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(ast.literal_eval(run.stdout))


def test_public_names_are_the_promised_ones() -> None:
    assert sorted(diffinst.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_resolves(name: str) -> None:
    assert getattr(diffinst, name) is not None
    assert name in dir(diffinst)


def test_import_loads_no_torch() -> None:
    loaded = loaded_after("import diffinst")
    assert "diffinst" in loaded
    assert loaded.isdisjoint({"torch", "timm", "pydantic", "numpy"})


def test_config_loads_no_torch() -> None:
    loaded = loaded_after("from diffinst import Config")
    assert "diffinst.config" in loaded
    assert loaded.isdisjoint({"torch", "timm", "numpy"})


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    typo = "Confg"
    with pytest.raises(AttributeError, match=r"no attribute 'Confg'.*Config, DiffusionInst"):
        getattr(diffinst, typo)
