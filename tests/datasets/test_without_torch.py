"""Reading and examining data starts at once: it loads no torch."""

import subprocess
import sys
from pathlib import Path

READ = """
import importlib, pkgutil, sys
import diffinst.cli.doctor
import diffinst.datasets

for module in pkgutil.walk_packages(diffinst.datasets.__path__, "diffinst.datasets."):
    importlib.import_module(module.name)

from diffinst.datasets.doctor.examine import examine
from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes

root = make_shapes(sys.argv[1], train=2, val=1)
assert len(load_split(root, "train").records) == 2
assert len(examine(root).summaries) == 2
assert "diffinst.datasets.doctor.summary" in sys.modules
print(sorted({"torch", "torchvision", "timm"}.intersection(sys.modules)))
"""


def test_datasets_and_their_doctor_load_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ, str(tmp_path / "shapes")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
