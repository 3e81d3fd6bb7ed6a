"""What every test shares: checked shapes, few threads, models, where data lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from diffinst import DiffusionInst

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# Shapes and dtypes in the signatures of these modules are checked at every call, in tests only. It
# has to be said before anything imports them. As for mypy, an int will do where a float is due.
OPS = sorted(path.stem for path in (PROJECT_ROOT / "src" / "diffinst" / "ops").glob("*.py"))
TYPECHECKED = (
    *(f"diffinst.ops.{name}" for name in OPS if name != "__init__"),
    "diffinst.kernels.linear",
    "diffinst.diffusion",
    "diffinst.models",
    "diffinst.training.matcher",
    "diffinst.inference.found",
)
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
if os.environ.get("DIFFINST_TYPECHECK") != "0":
    install_import_hook(TYPECHECKED, TYPECHECKER)

# One thread each where several processes run tests, those that tests start included.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
torch.set_num_threads(min(2, torch.get_num_threads()))

# Shared machines stall now and then, so no example has a deadline; CI draws the same ones each run.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    # The type check looks at a random item of a sequence; no test's outcome hangs on which one.
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch finds none")


def folder_or_skip(variable: str, default: Path, content: str) -> Path:
    """The folder that the environment variable names, or the default; skips where it is absent."""
    folder = Path(os.environ.get(variable) or default).resolve()
    if not folder.is_dir():
        pytest.skip(f"{content} not found: {folder} is no folder; name theirs with {variable}")
    return folder


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """No check of shapes: the sizes of a trace are symbols, which it does not know."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny() -> DiffusionInst:
    """The smallest preset with fresh weights; to be read only."""
    from diffinst import DiffusionInst  # not above: the hook comes before any import

    return DiffusionInst.from_preset("tiny")


@pytest.fixture(scope="session")
def nano() -> DiffusionInst:
    """The weights that ship; to be read only."""
    from diffinst import DiffusionInst

    return DiffusionInst.from_pretrained("nano-nuclei")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Numbers of the reference implementation, one .npz per part, with recipe.py."""
    default = PROJECT_ROOT.parent / "shared" / "reference"
    return folder_or_skip("DIFFINST_REFERENCE", default, "reference numbers")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data for tests: datasets/, weights/ and photos/ lie below it."""
    return folder_or_skip("DIFFINST_SHARED", PROJECT_ROOT.parent / "shared", "shared data")
