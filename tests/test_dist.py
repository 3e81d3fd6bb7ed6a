"""Does `make dist` refuse what can't be released, and does the checkout build what it should?"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dist() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dist_of_ci", ROOT / ".ci" / "dist.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"diffinst/{name}", content)
        archive.writestr("diffinst-1.dist-info/RECORD", path.name)
    return path


def test_wheels_are_compared_file_by_file(dist: ModuleType, tmp_path: Path) -> None:
    one = dist.contents(wheel(tmp_path / "a.whl", x=b"1", y=b"2"))
    assert set(one) == {"diffinst/x", "diffinst/y"}  # RECORD lists the others
    dist.compare(one, dist.contents(wheel(tmp_path / "b.whl", y=b"2", x=b"1")))
    with pytest.raises(dist.Unfit, match=r"another wheel than the checkout: diffinst/y$"):
        dist.compare(one, dist.contents(wheel(tmp_path / "c.whl", x=b"1", y=b"3")))
    with pytest.raises(dist.Unfit, match="diffinst/y"):
        dist.compare(one, dist.contents(wheel(tmp_path / "d.whl", x=b"1")))


def test_a_wheel_without_its_parts_or_too_large_is_refused(
    dist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name.removeprefix("diffinst/"): b"" for name in dist.NEEDED}
    whole = wheel(tmp_path / "a.whl", **parts, **{"weights/x/model.safetensors": b""})
    dist.check(whole)
    with pytest.raises(dist.Unfit, match=r"b.whl lacks the shipped weights"):
        dist.check(wheel(tmp_path / "b.whl", **parts))
    parts.pop("py.typed")
    with pytest.raises(dist.Unfit, match=r"c.whl lacks diffinst/py.typed"):
        dist.check(wheel(tmp_path / "c.whl", **parts))
    monkeypatch.setattr(dist, "MOST", 100)
    with pytest.raises(dist.Unfit, match="are allowed"):
        dist.check(whole)


@pytest.mark.slow
def test_the_checkout_can_be_released_and_its_wheel_works(tmp_path: Path) -> None:
    pytest.importorskip("check_wheel_contents")
    root = tmp_path / "checkout"
    for name in ("src", ".ci"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    done = subprocess.run(
        [sys.executable, str(root / ".ci" / "dist.py")], capture_output=True, text=True, check=False
    )
    if "failed" in done.stderr and "hatchling" in done.stdout and "onnection" in done.stdout:
        pytest.skip("the package index, which has hatchling, is not reached")
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (root / "dist").glob("*.whl")
    site = tmp_path / "site"  # the wheel, before everything else that is installed
    shutil.unpack_archive(built, site, format="zip")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import diffinst; print(diffinst.__file__)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(str(site))
