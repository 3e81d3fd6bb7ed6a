"""Does it pay to label what the model doubts? Train, choose more images, train again, compare.

    python benchmarks/labelling.py --data DATA --weights mobilenetv2_100.st --iterations 1500

For each seed a part of the training images is drawn and `nano` is trained on it. The rest is ranked
by that model as `diffinst rank` does it; as many images again are taken by rank, or drawn. Both go
on from the first model, on all images chosen so far, with the same settings and iterations, and are
scored on val. What is finished is kept in `--runs` and not done again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.evaluation.evaluate import evaluate
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.rank import rank
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine
from diffinst.training.train import train

app = App()
METRICS = ("mask/AP", "mask/AP50", "mask/AP75", "box/AP")
SETTINGS: dict[str, Any] = {
    "augment": {"vertical_flip": 0.5, "transpose": 0.5, "colour": 0.2},
    "postprocess": {"max_detections": 500},
}


@app.default
def labelling(
    *,
    data: Path,
    weights: Path | None = None,
    iterations: int = 1500,
    fraction: float = 0.1,
    seeds: tuple[int, ...] = (0, 1),
    noises: int = 8,
    pool: int | None = None,
    limit: int | None = None,
    proposals: int = 300,
    runs: Path = Path("runs/labelling"),
    out: Path = Path(__file__).parent / "results" / "labelling.json",
) -> None:
    """Run the trial; print and write AP before, and after each of the two choices.

    Args:
        data: COCO-format folder with train and val.
        weights: ImageNet weights of the backbone; default: from the hub.
        iterations: Of each training; three a seed.
        fraction: Of the training images, at first and once more.
        seeds: One trial each.
        noises: Runs of each image that is ranked.
        pool: Choose among so many other images, drawn; default: among all.
        limit: First N images of val only.
        proposals: Boxes in training; fewer are quicker.
        runs: Where trainings are kept.
        out: JSON file.
    """
    whole = load_split(data, "train")
    count = max(1, round(fraction * len(whole.records)))
    rows = []
    for seed in seeds:
        name = f"{iterations}x{proposals}-{fraction:g}-of-{pool or 'all'}-seed{seed}"
        place = runs / name
        order = np.random.default_rng(seed).permutation(len(whole.records))
        ids = [whole.records[int(i)].id for i in order]
        first, rest = ids[:count], ids[count:][:pool]
        start = trained(whole, first, place / "start", weights, iterations, seed, proposals)
        chosen = {
            "rank": ranked(start, whole, rest, place / "rank.json", noises)[:count],
            "random": rest[:count],
        }
        row: dict[str, Any] = {"seed": seed, "start": scored(start, data, place, "start", limit)}
        for name, more in chosen.items():
            folder = place / name
            trained(whole, [*first, *more], folder, None, iterations, seed, proposals, start)
            row[name] = scored(folder, data, place, name, limit)
            row[name]["objects"] = objects(whole, more)
        rows.append(row)
        print(json.dumps(row), flush=True)
        settings = {"iterations": iterations, "images": count, "noises": noises, "pool": pool}
        settings |= {"limit": limit, "proposals": proposals}
        write_json(out, {"machine": machine("cpu"), "data": data.name, **settings, "rows": rows})


def trained(
    whole: Split,
    ids: list[int],
    folder: Path,
    weights: Path | None,
    iterations: int,
    seed: int,
    proposals: int,
    origin: Path | None = None,
) -> Path:
    """A model trained on some of the images, unless it is there already."""
    if (folder / "model.safetensors").is_file():
        return folder
    part = subset(whole, ids, folder.with_name(f"{folder.name}-data"))
    backbone = {} if weights is None else {"backbone": {"weights_file": str(weights)}}
    fields: dict[str, Any] = {
        "iterations": iterations,
        "warmup": min(100, iterations // 5),
        "ema": 0.99,
        "eval_every": 0,
        "seed": seed,
        "proposals": proposals,
        "loggers": ["csv"],
    }
    settings = (
        SETTINGS
        if origin
        else SETTINGS | {"model": {"diffusion": {"size_pixels": 128}, **backbone}}
    )
    train(part, origin=origin, out=folder, resume=folder.is_dir(), train=fields, **settings)
    return folder


def subset(whole: Split, ids: list[int], folder: Path) -> Path:
    """A dataset of some of the training images, without val: the trial scores that itself."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    names = {record.id: str(record.path.relative_to(whole.image_dir)) for record in whole.records}
    content: dict[str, Any] = dict(whole.as_coco(set(ids)))
    content = {part: [dict(entry) for entry in entries] for part, entries in content.items()}
    for image in content["images"]:
        image["file_name"] = names[image["id"]]
    write_json(folder / "annotations" / "instances_train.json", content)
    link = folder / "train"
    if not link.exists():
        link.symlink_to(whole.image_dir.resolve())
    return folder


def ranked(model: Path, whole: Split, ids: list[int], file: Path, noises: int) -> list[int]:
    """Ids of images, the most doubtful first."""
    if not file.is_file():
        by_path = {record.path: record.id for record in whole.records if record.id in set(ids)}
        loaded = DiffusionInst.from_pretrained(model)
        found = rank(loaded, list(by_path), noises=noises)
        write_json(file, [by_path[row.path] for row in found.rows])
    order: list[int] = json.loads(file.read_text("utf-8"))
    return order


def scored(model: Path, data: Path, place: Path, name: str, limit: int | None) -> dict[str, Any]:
    """Metrics on val."""
    report = evaluate(str(model), data, out=place / f"{name}-eval", files=False, limit=limit)
    values = report.as_dict()
    return {metric: values[metric] for metric in METRICS}


def objects(whole: Split, ids: list[int]) -> int:
    """Annotated objects on some of the images: what labelling them costs."""
    kept = set(ids)
    return sum(len(record.annotations) for record in whole.records if record.id in kept)


if __name__ == "__main__":
    app()
