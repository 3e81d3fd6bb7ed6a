"""Curves of precision over recall, and of AP over steps and time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffinst.evaluation.metrics import IOU_50, IOU_75, Metrics
from diffinst.io.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 12  # with more, no curve per class: nobody could tell them apart
MEAN = "mean of IoU 0.50 to 0.95"
_COLOURS = 10  # of matplotlib's cycle
_DPI = 120
_PANEL = (5.2, 4.2)  # inches


def draw_precision_recall(metrics: Metrics, path: Path, *, title: str) -> None:
    """Write the curves as a PNG: mean over classes at IoU 0.5, 0.75 and over all ten thresholds.

    Up to twelve classes have a curve each, the mean over the thresholds, in a second panel.

    Args:
        metrics: Masks' or boxes'.
        path: The file.
        title: What was evaluated.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [k for k, ap in enumerate(metrics.per_class.values()) if not np.isnan(ap)]
    names = [list(metrics.per_class)[k] for k in shown]
    panels = 2 if 1 < len(names) <= MAX_CLASSES else 1
    figure, axes = _figure(panels)
    recall = np.linspace(0, 1, 101)
    precision = metrics.precision[:, :, shown]  # (10, 101, classes with objects)
    mean = precision.mean(0)  # over thresholds
    of_iou = {"IoU 0.50": precision[IOU_50], "IoU 0.75": precision[IOU_75], MEAN: mean}
    for name, of_classes in of_iou.items():  # (101, classes)
        curve = of_classes.mean(1) if names else np.full(101, np.nan)
        axes[0].plot(recall, curve, label=_label(curve, name))
    _finish(axes[0], title)
    if panels == 2:
        of_class = sorted(zip(mean.T, names, strict=True), key=lambda pair: -pair[0].mean())
        for i, (curve, name) in enumerate(of_class):
            style = "-" if i < _COLOURS else "--"
            axes[1].plot(recall, curve, style, label=_label(curve, name))
        _finish(axes[1], f"by class, {MEAN}", beside=True)
    _save(figure, path)


def draw_sweep(rows: Sequence[Mapping[str, float | str | None]], path: Path, *, title: str) -> None:
    """Write AP over steps and AP over time as a PNG, a line per number of proposals.

    Args:
        rows: `steps`, `proposals`, `mask/AP` and `seconds_per_image` of each cell.
        path: The file.
        title: What was evaluated.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, (over_steps, over_time) = _figure(2)
    keys = ("steps", "proposals", "mask/AP", "seconds_per_image")
    table = np.array([[row[key] for key in keys] for row in rows], dtype=float)  # None becomes NaN
    table = table[table[:, 0].argsort()]
    for proposals in np.unique(table[:, 1]):
        steps, _, ap, seconds = table[table[:, 1] == proposals].T
        over_steps.plot(steps, ap, "o-", label=f"{proposals:g} proposals")
        over_time.plot(seconds, ap, "o-", label=f"{proposals:g} proposals")
        for x, y, step in zip(seconds, ap, steps, strict=True):
            if not np.isnan(y):
                place = {"xytext": (3, -10), "textcoords": "offset points", "fontsize": 7}
                over_time.annotate(f"{step:g}", (x, y), **place)
    ticks = np.unique(table[:, 0])
    over_steps.set(xlabel="steps", ylabel="mask AP", title=title, xscale="log")
    over_steps.set_xticks(ticks, [f"{step:g}" for step in ticks])
    over_steps.minorticks_off()
    over_time.set(
        xlabel="seconds per image", ylabel="mask AP", title="steps at the points", xlim=(0, None)
    )
    for axes in (over_steps, over_time):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def draw_curve(rows: Sequence[Mapping[str, float | str | None]], path: Path, *, title: str) -> None:
    """Write AP over seconds as a PNG: a line per sampler and number of proposals, and the front.

    Args:
        rows: `kind`, `steps`, `proposals`, `mask/AP` and `seconds_per_image` of each setting, and
            `front`: 1 where no other is better in less time.
        path: The file.
        title: What was evaluated.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, (axes,) = _figure(1)
    figure.set_size_inches(7.5, 5)
    lines: dict[tuple[float, str], list[tuple[float, float, str]]] = {}
    front: list[tuple[float, float]] = []
    for row in rows:
        if row["mask/AP"] is None:
            continue
        seconds, ap = float(row["seconds_per_image"] or 0), float(row["mask/AP"])
        line = lines.setdefault((float(row["proposals"] or 0), str(row["kind"])), [])
        line.append((seconds, ap, str(row["steps"])))
        front += [(seconds, ap)] if row["front"] else []
    kinds = sorted({kind for _, kind in lines})
    numbers = sorted({number for number, _ in lines})
    for (proposals, kind), points in sorted(lines.items()):
        x, y, steps = zip(*sorted(points), strict=True)
        style = ("o-", "s--", "^:")[kinds.index(kind) % 3]
        colour = f"C{numbers.index(proposals) % _COLOURS}"
        axes.plot(x, y, style, c=colour, label=f"{kind}, {proposals:g} proposals", lw=1.2)
        for here, there, step in zip(x, y, steps, strict=True):
            place = {"xytext": (3, -10), "textcoords": "offset points", "fontsize": 7}
            axes.annotate(step, (here, there), **place)
    if front:
        axes.plot(*zip(*sorted(front), strict=True), "-", c="0.8", lw=7, zorder=0, label="front")
    axes.set(xlabel="seconds per image", ylabel="mask AP", title=f"{title}\nsteps at the points")
    axes.set_xlim(0, None)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")
    _save(figure, path)


def _label(curve: NDArray[np.float64], name: str) -> str:
    """AP first, as a leading underscore hides a label; dollar signs would begin a formula."""
    value = "no objects" if np.isnan(curve).any() else f"AP {curve.mean():.3f}"
    return f"{value}  {name}".replace("$", r"\$")


def _figure(panels: int) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of its own: no window, no display, no state shared with the caller's plots."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "curves are drawn by matplotlib, which is not installed; run "
            "`pip install diffinst[plots]`"
        ) from error
    figure = Figure(figsize=(_PANEL[0] * panels, _PANEL[1]), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _finish(axes: Axes, title: str, *, beside: bool = False) -> None:
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    if beside:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(fontsize=8, loc="best")


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # class names may be of any script
        figure.savefig(temporary, format="png")
