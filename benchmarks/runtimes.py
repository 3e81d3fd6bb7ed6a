"""Every way to run the same weights: is it as accurate, and is it faster?

    python benchmarks/runtimes.py --data DATA  # a COCO-format folder like shared nuclei
    python benchmarks/runtimes.py table

PyTorch in float32, bf16 and compiled, ONNX Runtime, OpenVINO in float32 and int8, one step, on the
val images of the most common size. Accuracy: mask AP, and the share of float32's confident
instances found again (mask IoU >= 0.95, same class). Speed: each round runs every contestant once
on one image, from the file to masks in boxes; ratios to PyTorch float32 are taken within a round.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App

from diffinst.datasets.load import load_split
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.export.about import Format, read_about
from diffinst.export.files import export
from diffinst.export.parity import common, from_candidates, same_settings
from diffinst.export.runtimes import load
from diffinst.export.unrolled import exported_inputs, fitted
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import read_image
from diffinst.kernels.machine import machine
from diffinst.ops.images import fit_size
from diffinst.results.instances import Instances

app = App()
RESULTS = Path(__file__).parent / "results"
BASE = "PyTorch fp32"
CALIBRATION = 64  # images
Predict = Callable[[Path], Instances]


@app.default
def runtimes(
    *,
    data: Path,
    model: str = "nano-nuclei",
    proposals: int = 500,
    max_detections: int = 500,
    rounds: int = 15,
    limit: int | None = None,
    results: Path = RESULTS,
) -> None:
    """Measure, print the table, write `runtimes.json` and `.md`.

    Args:
        data: COCO-format folder; train calibrates int8, val is scored.
        model: Name or folder of the weights.
        proposals: Boxes to start from.
        max_detections: Kept on an image.
        rounds: Images that are timed.
        limit: Score on at most so many images.
        results: Folder of the files.
    """
    loaded = DiffusionInst.from_pretrained(model)
    threshold = loaded.config.postprocess.threshold or 0.5
    sampler: dict[str, object] = {"steps": 1, "proposals": proposals}
    shown: dict[str, object] = {"threshold": 0.0, "max_detections": max_detections}
    config = loaded.config.updated(sampler=sampler, postprocess=shown)
    loaded = DiffusionInst(loaded.network, config)
    split = load_split(data, "val")
    size = Counter((r.height, r.width) for r in split.records).most_common(1)[0][0]
    records = of_size(split, size)[:limit]
    seen = of_size(load_split(data, "train"), size)[:CALIBRATION]
    if not seen:
        raise ValueError(f"{data}: train has no image of {size} to calibrate int8 on")
    content: dict[str, Any] = {"machine": machine("cpu"), "model": model}
    content |= {"size": size, "images": len(records), "proposals": proposals, "rows": {}}
    with tempfile.TemporaryDirectory(prefix="diffinst-runtimes-") as folder:
        ways = contestants(loaded, Path(folder), size, [r.path for r in seen])
        expected = {r.id: ways[BASE](r.path) for r in records}
        for name, way in ways.items():
            content["rows"][name] = accuracy(way, split, records, expected, threshold)
            print(name, content["rows"][name])
        for name, seconds in race(ways, [r.path for r in records], rounds).items():
            content["rows"][name]["seconds"] = seconds
    write_json(results / "runtimes.json", content)
    table(results=results)


def of_size(split: Split, size: tuple[int, int]) -> list[ImageRecord]:
    """Images of (height, width)."""
    return [r for r in split.records if (r.height, r.width) == size]


def contestants(
    model: DiffusionInst, folder: Path, size: tuple[int, int], seen: Sequence[Path]
) -> dict[str, Predict]:
    """From a file to instances, by name; all see the image at the same size."""
    made: dict[str, Predict] = {
        BASE: model.optimize("fp32").predict,
        "PyTorch bf16": model.optimize("bf16").predict,
        "PyTorch fp32 compiled": model.optimize("fp32", compile_network=True).predict,
        "PyTorch bf16 compiled": model.optimize("bf16", compile_network=True).predict,
    }
    made["ONNX Runtime fp32"] = exported(model, folder / "onnx", "onnx", size, ())
    made["OpenVINO fp32"] = exported(model, folder / "openvino", "openvino", size, ())
    made["OpenVINO int8"] = exported(model, folder / "int8", "openvino", size, seen)
    return made


def exported(
    model: DiffusionInst, folder: Path, to: Format, size: tuple[int, int], seen: Sequence[Path]
) -> Predict:
    """The same of an exported model; suppression and masks are ours."""
    config = model.config.preprocess
    inside = fit_size(
        size, short_side=config.short_side, zoom=config.zoom, long_side=config.long_side
    )
    export(model, folder, to, inside, postprocess=False, calibration=seen)
    about, run = read_about(folder), load(folder)
    like = same_settings(model, about)

    def predict(path: Path) -> Instances:
        image = read_image(path)
        outputs = run(**exported_inputs(fitted(image, about.size), like.config))
        return from_candidates(outputs, about, like, (image.shape[0], image.shape[1]))

    return predict


def accuracy(
    predict: Predict,
    split: Split,
    records: Sequence[ImageRecord],
    expected: dict[int, Instances],
    threshold: float,
) -> dict[str, Any]:
    """AP on the images, and how many confident instances are those expected."""
    limit = max(len(found) for found in expected.values())
    predictions, counts = [], np.zeros(3, dtype=int)
    for record in records:
        found = predict(record.path)
        results = found.to_coco(record.id, split.category_ids, boxes="predicted")
        predictions.append(Prediction(record.id, 0.0, results))
        counts += common(expected[record.id], found, threshold)
    mask = score(split, predictions, max(limit, 1)).mask
    confident, same, extra = (int(n) for n in counts)
    scores = {key: mask.as_dict("mask")[f"mask/{key}"] for key in ("AP", "AP50")}
    return {**scores, "confident": confident, "same": same, "extra": extra}


def race(ways: dict[str, Predict], paths: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds):
        path = paths[i % len(paths)]
        for name, way in ways.items():
            begin = time.perf_counter()
            way(path)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


@app.command
def table(*, results: Path = RESULTS) -> None:
    """Write and print `runtimes.md` from the JSON."""
    content = json.loads((results / "runtimes.json").read_text("utf-8"))
    where, (height, width) = content["machine"], content["size"]
    lines = [
        f"{where['device']}, {where['threads']} threads, torch {where['torch']}; "
        f"{content['model']}, {content['images']} images of {height} x {width}, 1 step, "
        f"{content['proposals']} proposals\n",
        "| runtime | mask AP | AP50 | same instances | s an image | ratio | range |",
        "|---|---|---|---|---|---|---|",
    ]
    base = content["rows"][BASE]["seconds"]
    for name, row in content["rows"].items():
        ratios = [mine / its for mine, its in zip(row["seconds"], base, strict=True)]
        cells = [f"{row['AP']:.3f}", f"{row['AP50']:.3f}", f"{row['same']} of {row['confident']}"]
        cells += [f"{statistics.median(row['seconds']):.3f}", f"{statistics.median(ratios):.2f}"]
        cells.append(f"{min(ratios):.2f}-{max(ratios):.2f}")
        lines.append(f"| {' | '.join([name, *cells])} |")
    text = "\n".join(lines) + "\n"
    with atomic_path(results / "runtimes.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    app()
