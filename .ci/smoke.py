"""Does an installed diffinst work? Every command's help, and one image segmented.

Run by a Python that has nothing of the checkout on its path, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DRAW = """
from PIL import Image, ImageDraw
image = Image.new("RGB", (160, 120))
for x in range(20, 150, 40):
    for y in range(20, 110, 40):
        ImageDraw.Draw(image).ellipse((x - 9, y - 8, x + 9, y + 8), fill=(150, 150, 150))
image.save("a.png")
"""


def main() -> None:
    """Raises where a command fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=folder,
                env=environment | {"COLUMNS": "100"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
            return done.stdout

        where = run("-c", "import diffinst; print(diffinst.__file__)").strip()
        commands = re.findall(
            r"^[│ ]*([a-z]+) {2,}\S", run("-m", "diffinst", "--help"), re.MULTILINE
        )
        assert "predict" in commands and "train" in commands, commands
        for command in commands:
            run("-m", "diffinst", command, "--help")
        run("-c", DRAW)
        run("-m", "diffinst", "predict", "a.png", "--out", "out")
        found = json.loads(Path(folder, "out", "results.json").read_text("utf-8"))
        assert len(found) >= 6, f"{len(found)} of 12 discs found"
        version = run("-m", "diffinst", "--version").strip()
        print(
            f"diffinst {version} in {where}, Python {sys.version.split()[0]}: "
            f"{len(commands)} commands ({', '.join(commands)}); {len(found)} of 12 objects found"
        )


if __name__ == "__main__":
    main()
