"""Training curves of a run: losses of the last stage, learning rate and val AP over iterations.

python benchmarks/curves.py runs/b/metrics.csv --out curves.png
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib
import numpy as np
from cyclopts import App

matplotlib.use("Agg")
from matplotlib import pyplot as plt

app = App()
TERMS = {"loss/class": "class", "loss/l1": "L1", "loss/giou": "GIoU", "loss/dice": "dice"}
SMOOTH = 15  # rows of the log


@app.default
def curves(metrics: Path, *, out: Path) -> None:
    """Plot one run.

    Args:
        metrics: The run's metrics.csv.
        out: PNG file.
    """
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, (losses, ap) = plt.subplots(1, 2, figsize=(10, 3.4), constrained_layout=True)
    for key, label in TERMS.items():
        steps, values = column(rows, key)
        losses.plot(steps, smooth(values), label=label, linewidth=1.3)
    losses.set(xlabel="iteration", ylabel="weighted loss, last stage", yscale="log")
    losses.legend(frameon=False)
    for key, label in {"val/mask/AP": "mask AP", "val/mask/AP50": "mask AP50"}.items():
        steps, values = column(rows, key)
        ap.plot(steps, values, "o-", label=label)
    ap.set(xlabel="iteration", ylabel="val, one step", ylim=(0, 1), xlim=losses.get_xlim())
    ap.legend(frameon=False, loc="lower right")
    for axis in (losses, ap):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


def column(rows: list[dict[str, str]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of the rows that have one."""
    pairs = [(int(r["step"]) + 1, float(r[key])) for r in rows if r.get(key)]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over `SMOOTH` rows, shorter at the ends."""
    kernel = np.ones(min(SMOOTH, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


if __name__ == "__main__":
    app()
