"""The numbers of a model card: AP over steps and proposals from one set of weights, with times.

    python benchmarks/card.py --data DATA --model nano-nuclei --out results.json --plot steps.png

Each row is what `diffinst eval --data DATA --model MODEL --kind K --steps S --proposals P` prints
(with --mask-quality: of a model whose postprocess.mask_quality is that). Times include reading,
preprocessing, post-processing and RLE-ready masks, one image at a time.
Pairs are given as STEPSxPROPOSALS.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.evaluation.curve import on_front
from diffinst.evaluation.curves import draw_curve
from diffinst.evaluation.evaluate import evaluate
from diffinst.evaluation.sweep import Row
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine

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
        write_json(out, {"machine": machine("cpu"), **settings, "rows": rows})
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
    """AP over seconds an image, a line per sampler and number of proposals, of the first seed.

    Rows without a time that can be compared are left out.
    """
    shown: list[Row] = []
    for row in rows:
        if row["seconds_per_image"] is None:
            continue
        steps, proposals = row["pair"].split("x")
        about = {"kind": row["sampler"], "steps": steps, "proposals": int(proposals)}
        if row["seed"] == rows[0]["seed"]:
            shown.append({**about, **{k: row[k] for k in ("mask/AP", "seconds_per_image")}})
    for row, front in zip(shown, on_front(shown), strict=True):
        row["front"] = float(front)
    draw_curve(shown, out, title="AP over seconds")


if __name__ == "__main__":
    app()
