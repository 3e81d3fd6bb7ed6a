"""The command line: `diffinst predict | train | eval | benchmark | doctor | download | ...`."""

from __future__ import annotations

import sys

from cyclopts import App
from rich.markup import escape

from diffinst.cli.benchmark import benchmark
from diffinst.cli.doctor import doctor
from diffinst.cli.download import download
from diffinst.cli.evaluate import evaluate
from diffinst.cli.export import export
from diffinst.cli.models import convert, info
from diffinst.cli.predict import predict
from diffinst.cli.terminal import console
from diffinst.cli.train import train
from diffinst.kernels.memory import keep_freed_memory

app = App(
    name="diffinst",
    help="Instance segmentation by denoising boxes and filters (DiffusionInst).",
    version_flags=["--version"],
)
app.command(predict)
app.command(train)
app.command(evaluate, name="eval")
app.command(benchmark)
app.command(doctor)
app.command(download)
app.command(export)
app.command(convert)
app.command(info)


def main() -> None:
    """Entry point: errors of the user's making are one clear line, not a traceback."""
    keep_freed_memory()
    try:
        app()
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
