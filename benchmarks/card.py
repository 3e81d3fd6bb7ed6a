"""The numbers of a model card: AP over steps and proposals from one set of weights, with times.

    python benchmarks/card.py --data DATA --model nano-nuclei --out results.json --plot steps.png

Each row is what `diffinst eval --data DATA --model MODEL --kind K --steps S --proposals P` prints
(with --mask-quality: of a model whose postprocess.mask_quality is that). Times include reading,
preprocessing, post-processing and RLE-ready masks, one image at a time.
Pairs are given as STEPSxPROPOSALS.
"""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.evaluation.evaluate import evaluate
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json

app = App()
COLUMNS = (
    "mask/AP",
    "mask/AP50",
    "mask/AP75",
    "mask/AP90",
    "mask/AP_small",
    "mask/AP_medium",
    "box/AP",
    "seconds_per_image",
)
SEARCH = (*(f"{s}x{p}" for p in (100, 300, 500) for s in (1, 4)), "2x500", "8x500", "1x2000")
DDIM = ("4x100", "4x500")


@app.default
def card(
    *,
    data: Path,
    model: str,
    out: Path,
    split: str = "val",
    search: tuple[str, ...] = SEARCH,
    ddim: tuple[str, ...] = DDIM,
    seeds: tuple[int, ...] = (0,),
    mask_quality: float | None = None,
    plot: Path | None = None,
) -> None:
    """Evaluate every pair; print a table, write all metrics, draw AP over seconds.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file; rows that it holds of the same settings are not measured again.
        split: Which annotations.
        search: Pairs for the search sampler.
        ddim: Pairs for DDIM as published.
        seeds: Of the starting noise; each is a row of its own.
        mask_quality: In place of the model's own.
        plot: PNG file.
    """
    loaded = DiffusionInst.from_pretrained(model)
    if mask_quality is not None:
        changed = loaded.config.updated(postprocess={"mask_quality": mask_quality})
        loaded = DiffusionInst(loaded.network, changed)
    annotated = load_split(data, split)
    quality = loaded.config.postprocess.mask_quality
    settings = {"model": model, "data": data.name, "split": split, "mask_quality": quality}
    rows = rows_of(out, settings)
    done = {(r["sampler"], r["pair"], r["seed"]) for r in rows}
    print("sampler pair seed " + " ".join(f"{c.removeprefix('mask/'):>10}" for c in COLUMNS))
    loaded.predict(annotated.records[0].path)  # warm-up
    asked = [("search", pair) for pair in search] + [("ddim", pair) for pair in ddim]
    for (kind, pair), seed in product(asked, seeds):
        if (kind, pair, seed) in done:
            continue
        steps, proposals = pair.split("x")
        report = evaluate(
            loaded,
            annotated,
            steps="auto" if steps == "auto" else int(steps),
            proposals=int(proposals),
            seed=seed,
            kind="search" if kind == "search" else "ddim",
        )
        row = {"sampler": kind, "pair": pair, "seed": seed, **report.as_dict()}
        rows.append(row)
        found = [row[column] for column in COLUMNS]
        values = " ".join(f"{'-':>10}" if v is None else f"{v:>10.4f}" for v in found)
        print(f"{kind:>7} {pair:>9} {seed:>4} {values}", flush=True)
        write_json(out, {"machine": machine(), **settings, "rows": rows})
    if plot is not None:
        draw(rows, plot)


def rows_of(out: Path, settings: dict[str, object]) -> list[dict[str, Any]]:
    """The rows that a file holds; refuses one of other settings."""
    if not out.is_file():
        return []
    held = json.loads(out.read_text())
    for name, value in settings.items():
        if held.get(name) != value:
            raise ValueError(
                f"{out} holds rows of {name} {held.get(name)}, not {value}; give another --out"
            )
    rows: list[dict[str, Any]] = held["rows"]
    return rows


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """AP over seconds an image, one line per sampler and number of proposals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    series: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        series[row["sampler"], row["pair"].split("x")[1]].append(row)
    for (kind, proposals), members in series.items():
        members = [row for row in members if row["seed"] == members[0]["seed"]]
        members.sort(key=lambda r: r["seconds_per_image"])
        seconds = [r["seconds_per_image"] for r in members]
        ap = [r["mask/AP"] for r in members]
        style = "o-" if kind == "search" else "s--"
        axis.plot(seconds, ap, style, label=f"{kind}, {proposals} boxes", linewidth=1.3)
        for row, x, y in zip(members, seconds, ap, strict=True):
            where = (3, -10)
            axis.annotate(row["pair"].split("x")[0], (x, y), where, textcoords="offset points")
    axis.set(xlabel="seconds an image", ylabel="mask AP")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=120)


def machine() -> dict[str, object]:
    """What the times were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


if __name__ == "__main__":
    app()
