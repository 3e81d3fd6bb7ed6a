"""The command line: `diffinst predict | train | eval | curve | doctor | download | ...`."""

from __future__ import annotations

from cyclopts import App

from diffinst.cli.benchmark import benchmark
from diffinst.cli.curve import curve
from diffinst.cli.doctor import doctor
from diffinst.cli.download import download
from diffinst.cli.ending import errors_as_lines
from diffinst.cli.evaluate import evaluate
from diffinst.cli.export import export
from diffinst.cli.models import convert, info
from diffinst.cli.options import whole_numbers
from diffinst.cli.predict import predict
from diffinst.cli.prompt import prompt
from diffinst.cli.rank import rank
from diffinst.cli.scale import merge, verify
from diffinst.cli.serve import serve
from diffinst.cli.train import train
from diffinst.kernels.memory import keep_freed_memory

app = App(
    name="diffinst",
    help="Instance segmentation by denoising boxes and filters (DiffusionInst).",
    version_flags=["--version"],
    config=[whole_numbers],
)
app.command(predict)
app.command(prompt)
app.command(rank)
app.command(serve)
app.command(train)
app.command(evaluate, name="eval")
app.command(curve)
app.command(benchmark)
app.command(doctor)
app.command(download)
app.command(export)
app.command(convert)
app.command(info)
app.command(merge)
app.command(verify)


def main() -> None:
    """Entry point: errors of the user's making are one clear line, not a traceback."""
    keep_freed_memory()
    with errors_as_lines():
        app()
