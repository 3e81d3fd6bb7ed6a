"""Builds sdist and wheel into dist/ and checks them as an index would: `make dist` runs it.

The wheel is built twice, from the checkout and from the sdist; both have to hold the same files
with the same hashes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 25_000_000  # bytes of a wheel
NEEDED = ("diffinst/py.typed", "diffinst/presets/nano.yaml", "diffinst/datasets/catalogue.yaml")


class Unfit(Exception):
    """What was built can't be released."""


def run(*command: str) -> None:
    """Run a module of this Python; it says itself what is wrong."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
    if done.returncode:
        raise Unfit(f"{command[0]} failed ({done.returncode}); its words are above")


def contents(wheel: Path) -> dict[str, str]:
    """The sha256 of each file of a wheel; RECORD, which lists them, is left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def compare(one: dict[str, str], other: dict[str, str]) -> None:
    """Refuse two wheels that differ, by the files in which they do."""
    differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if differ:
        raise Unfit(f"the sdist builds another wheel than the checkout: {', '.join(differ[:10])}")


def check(wheel: Path) -> None:
    """Refuse a wheel that is too large or lacks what the package reads."""
    size = wheel.stat().st_size
    if size > MOST:
        raise Unfit(f"{wheel.name} has {size / 1e6:.1f} MB; {MOST / 1e6:.0f} are allowed")
    held = contents(wheel)
    weights = any(name.endswith("/model.safetensors") for name in held)
    missing = [name for name in NEEDED if name not in held]
    if missing or not weights:
        raise Unfit(f"{wheel.name} lacks {', '.join(missing) or 'the shipped weights'}")


def only(folder: Path, pattern: str) -> Path:
    """The one file there is."""
    (found,) = folder.glob(pattern)
    return found


def main() -> int:
    """Build and check; 1 and a line where something is wrong."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    try:
        run("build", "--sdist", "--wheel", "--outdir", str(dist))
        wheel, sdist = only(dist, "*.whl"), only(dist, "*.tar.gz")
        with tempfile.TemporaryDirectory() as folder:
            shutil.unpack_archive(sdist, folder, filter="data")
            source = only(Path(folder), "*")
            run("build", "--wheel", "--outdir", str(Path(folder, "again")), str(source))
            compare(contents(wheel), contents(only(Path(folder, "again"), "*.whl")))
        check(wheel)
        run("twine", "check", "--strict", str(wheel), str(sdist))
        run("check_wheel_contents", str(wheel))
    except Unfit as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in (wheel, sdist):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
