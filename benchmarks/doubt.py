"""Does stability tell right from wrong, and does a ranking by it find the images with errors?

    python benchmarks/doubt.py --data DATA --model nano-nuclei --runs runs.jsonl --out doubt.json \
        --plot reliability.png

Every image of the split is encoded once and predicted from several noises. A detection is right
where it has a free object of IoU 0.5 or more (COCO's matching, best score first). AUROC is the
probability that a right one is rated above a wrong one, ties counting half. Two populations:
`joined`, the objects of `predict(noises=8)`, and `plain`, those of the first run alone, rated by
its own score or by what the other runs say of them. Thresholds hold for every run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from cyclopts import App
from numpy.typing import NDArray

from diffinst.config import Options
from diffinst.datasets.load import load_split
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.matching import IOU_50, match
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.spread import groups, joined
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine
from diffinst.results.instances import Instances

matplotlib.use("Agg")
from matplotlib import pyplot as plt

app = App()
LOWEST = 0.4
"""Scores below are dropped. `mask_quality` 4 makes 0.4 of a class probability of 0.025 and an
expected mask IoU of 0.8."""
THRESHOLDS = (0.4, 0.5, 0.6)
KEPT = 500
FOLDS = 5
Values = dict[str, list[float]]
Runs = list[Instances]


@app.default
def doubt(
    *,
    data: Path,
    model: str = "nano-nuclei",
    out: Path,
    runs: Path,
    plot: Path | None = None,
    split: str = "val",
    noises: int = 8,
    limit: int | None = None,
) -> None:
    """Predict, rate, write the JSON and the plot.

    Args:
        data: COCO-format folder.
        model: Name, folder or hub id.
        out: JSON file.
        runs: Keeps every image's runs, a line each; images that it holds are not predicted again.
        plot: PNG file.
        split: Which annotations.
        noises: Runs of each image.
        limit: First N images only.
    """
    annotated = load_split(data, split)
    records = list(annotated.records[:limit])
    found = predicted(model, annotated, records, runs, noises)
    own = DiffusionInst.from_pretrained(model).config
    threshold = own.postprocess.threshold
    options = Options.of(own, threshold=LOWEST, max_detections=KEPT)
    content: dict[str, Any] = {
        "machine": machine("cpu"),
        "model": model,
        "data": data.name,
        "split": split,
        "images": len(records),
        "noises": noises,
        "steps": options.steps,
        "proposals": options.proposals,
        "auroc": {},
        "reliability": {},
    }
    for t in THRESHOLDS:
        rows: dict[str, dict[str, Any]] = {}
        for name, rate in (("plain", plain), ("joined", together)):
            values, right, image = table(annotated, records, found, options, t, rate)
            rows[name] = {
                "objects": len(right),
                "wrong": int((~right).sum()),
                **{k: auroc(np.array(v), right) for k, v in values.items()},
                "logistic": auroc(logistic(values, right, image), right),
            }
            if rate is together:
                content["reliability"][f"{t:g}"] = reliability(values, right, noises)
            print(t, name, {k: round(v, 3) for k, v in rows[name].items()}, flush=True)
        content["auroc"][f"{t:g}"] = rows
    content["ap"] = accuracy(annotated, records, found, options)
    content["images_by_doubt"] = images_by_doubt(annotated, records, found, options, threshold)
    write_json(out, content)
    if plot is not None:
        draw(content, plot)


def predicted(
    model: str, split: Split, records: Sequence[ImageRecord], file: Path, noises: int
) -> list[Runs]:
    """The runs of each image, from the file or predicted now and added to it."""
    there: dict[int, Any] = {}
    if file.is_file():
        lines = map(json.loads, file.read_text("utf-8").splitlines())
        there = {line["image_id"]: line["runs"] for line in lines}
    left = [record for record in records if record.id not in there]
    loaded = DiffusionInst.from_pretrained(model) if left else None
    for record in left:
        assert loaded is not None
        image = loaded.encode(record.path)
        each = [
            image.predict(seed=seed, threshold=LOWEST, max_detections=KEPT)
            for seed in range(noises)
        ]
        runs = [one.to_coco(record.id, split.category_ids, boxes="predicted") for one in each]
        there[record.id] = runs
        with file.open("a", encoding="utf-8") as writer:
            writer.write(json.dumps({"image_id": record.id, "runs": runs}) + "\n")
    return [
        [
            Instances.from_coco(
                [entry for entry in run if entry["score"] >= LOWEST],
                (record.height, record.width),
                split.classes,
                split.category_ids,
            )
            for run in there[record.id][:noises]
        ]
        for record in records
    ]


def together(runs: Runs, options: Options) -> tuple[Instances, Values]:
    """The objects of all runs, and what is said of them."""
    found = joined(runs, options)
    assert found.stability is not None
    assert found.score_spread is not None
    assert found.mask_agreement is not None
    return found, ratings(
        found.scores.numpy(),
        found.scores.numpy(),
        found.stability.numpy(),
        found.score_spread.numpy(),
        found.mask_agreement.numpy(),
    )


def plain(runs: Runs, options: Options) -> tuple[Instances, Values]:
    """The objects of the first run, with their own score and what all runs say of them."""
    everything = Instances.cat(runs)
    run = [k for k, one in enumerate(runs) for _ in range(len(one))]
    scores = everything.scores.numpy()
    rows: dict[int, tuple[float, ...]] = {}
    for group in groups(everything, run):
        mine = [m for m in group.members if run[m] == 0]
        if mine:
            members = scores[list(group.members)]
            count = len(group.members)
            agreement = float(group.agreement.sum()) / max(1, count - 1)
            rows[mine[0]] = (members.max(), count / len(runs), members.std(), agreement)
    first = len(runs[0])
    best, stability, spread, agreement = (
        np.array([rows[i] for i in range(first)], dtype=np.float64).reshape(-1, 4).T
    )
    return runs[0], ratings(scores[:first], best, stability, spread, agreement)


def ratings(
    own: NDArray[Any],
    best: NDArray[Any],
    stability: NDArray[Any],
    spread: NDArray[Any],
    agreement: NDArray[Any],
) -> Values:
    """Everything that objects are rated by, higher for the better."""
    return {
        name: [float(v) for v in values]
        for name, values in {
            "score": own,
            "best_score_of_all": best,
            "stability": stability,
            "minus_score_spread": -spread,
            "mask_agreement": agreement,
            "score_times_stability": own * stability,
            "best_score_times_agreement": best * agreement,
            "score_plus_best": own + best,
        }.items()
    }


def table(
    split: Split,
    records: Sequence[ImageRecord],
    found: Sequence[Runs],
    options: Options,
    threshold: float,
    rate: Any,
) -> tuple[Values, NDArray[np.bool_], NDArray[np.int64]]:
    """Ratings of all objects, whether they are right, and which image they are on."""
    values: Values = {}
    right: list[bool] = []
    image: list[int] = []
    for record, runs in zip(records, found, strict=True):
        objects, rated = rate([run.above(threshold) for run in runs], options)
        hits = hits_of(objects, record, split)
        right += hits.tolist()
        image += [record.id] * len(hits)
        for name, numbers in rated.items():
            values.setdefault(name, []).extend(numbers)
    return values, np.array(right, bool), np.array(image)


def hits_of(found: Instances, record: ImageRecord, split: Split) -> NDArray[np.bool_]:
    """(n,) which objects are right."""
    results = found.to_coco(record.id, split.category_ids, boxes="predicted")
    hits: NDArray[np.bool_] = match(record, results, split).hit[IOU_50]
    return hits


def auroc(values: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """P(a right one is rated above a wrong one), ties counting half; 0.5 where one kind lacks."""
    ones, zeros = int(right.sum()), int((~right).sum())
    if not ones or not zeros:
        return 0.5
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[right].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def logistic(values: Values, right: NDArray[np.bool_], image: NDArray[np.int64]) -> NDArray[Any]:
    """Ratings by a logistic regression on all others, fitted on the other images (5 folds)."""
    x = np.array(list(values.values()), dtype=np.float64).T
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    fold = np.unique(image, return_inverse=True)[1] % FOLDS
    result = np.zeros(len(x))
    for k in range(FOLDS):
        result[fold == k] = x[fold == k] @ _fitted(x[fold != k], right[fold != k])
    return result


def _fitted(x: NDArray[Any], right: NDArray[np.bool_]) -> NDArray[Any]:
    """Weights by Newton's method with a small ridge."""
    weights = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 1e-2 * np.eye(x.shape[1])
        weights -= np.linalg.solve(hessian, x.T @ (p - right) + 1e-2 * weights)
    return weights


def accuracy(
    split: Split, records: Sequence[ImageRecord], found: Sequence[Runs], options: Options
) -> dict[str, Any]:
    """AP of one run, of two and of all joined."""
    part = replace(split, records=tuple(records))
    result: dict[str, Any] = {}
    for count in sorted({1, 2, len(found[0])}):
        predictions = []
        for record, runs in zip(records, found, strict=True):
            one = runs[0] if count == 1 else joined(runs[:count], options)
            coco = one.to_coco(record.id, split.category_ids, boxes="predicted")
            predictions.append(Prediction(record.id, 0.0, coco))
        report = score(part, predictions, KEPT, [], LOWEST).as_dict()
        names = ("mask/AP", "mask/AP50", "mask/AP75", "mask/AP90", "box/AP")
        result[str(count)] = {name: report[name] for name in names}
        print("noises", count, result[str(count)], flush=True)
    return result


def images_by_doubt(
    split: Split,
    records: Sequence[ImageRecord],
    found: Sequence[Runs],
    options: Options,
    threshold: float,
) -> dict[str, Any]:
    """How measures of an image's doubt follow its errors (rank correlation, errors up front)."""
    measures: Values = {}
    errors, wrongness = [], []
    for record, runs in zip(records, found, strict=True):
        above = [run.above(threshold) for run in runs]
        results = above[0].to_coco(record.id, split.category_ids, boxes="predicted")
        matched = match(record, results, split)
        errors.append(int(matched.false[IOU_50].sum() + matched.missed[IOU_50].sum()))
        wrongness.append(1 - float(matched.f1_at[IOU_50]))
        objects = joined(above, options)
        assert objects.stability is not None
        doubts, p = 1 - objects.stability.numpy(), objects.stability.numpy()
        one, best = above[0].scores.numpy(), objects.scores.numpy()
        for name, value in {
            "objects": float(len(one)),
            "sum of 1 - stability": float(doubts.sum()),
            "mean of 1 - stability": float(doubts.mean()) if len(doubts) else 1.0,
            "sum of 1 - score, one run": float((1 - one).sum()),
            "mean of 1 - score, one run": float((1 - one).mean()) if len(one) else 1.0,
            "sum of 1 - stability * score": float((1 - p * best).sum()),
            "mean of 1 - stability * score": float((1 - p * best).mean()) if len(p) else 1.0,
            "sum of 1 - score, all runs": float((1 - best).sum()),
            "mean of 1 - score, all runs": float((1 - best).mean()) if len(p) else 1.0,
        }.items():
            measures.setdefault(name, []).append(value)
    count = np.array(errors, dtype=np.float64)
    return {
        name: {
            "with_errors": spearman(values, errors),
            "with_1_minus_f1": spearman(values, wrongness),
            "errors_in_first_quarter": up_front(values, count),
        }
        for name, values in measures.items()
    }


def up_front(values: Sequence[float], errors: NDArray[np.float64]) -> float:
    """The fraction of all errors on the quarter of the images ranked first."""
    first = np.argsort(-np.array(values), kind="stable")[: len(values) // 4]
    return float(errors[first].sum() / max(1, errors.sum()))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; 0 where one of the two is constant."""
    x, y = _ranks(np.array(a)), _ranks(np.array(b))
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[Any] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def reliability(values: Values, right: NDArray[np.bool_], noises: int) -> list[dict[str, float]]:
    """For each stability: how many objects, and what fraction of them is right."""
    runs = np.rint(np.array(values["stability"]) * noises).astype(int)
    rows = []
    for k in range(1, noises + 1):
        here = runs == k
        count = int(here.sum())
        fraction = float(right[here].mean()) if count else 0.0
        rows.append({"runs": k, "objects": count, "right": fraction})
    return rows


def draw(content: dict[str, Any], file: Path) -> None:
    """Reliability on the left, what tells right from wrong on the right."""
    figure, (left, bars) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    noises = content["noises"]
    for threshold, rows in content["reliability"].items():
        kept = [row for row in rows if row["objects"]]
        x = [row["runs"] / noises for row in kept]
        y = [row["right"] for row in kept]
        (line,) = left.plot(x, y, "-", linewidth=1.3, label=f"scores of {threshold} or more")
        sizes = [6 + 0.35 * row["objects"] for row in kept]
        left.scatter(x, y, s=np.minimum(sizes, 350), color=line.get_color(), alpha=0.6)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    left.set(xlabel=f"stability: fraction of {noises} runs that found it", ylim=(0, 1.02))
    left.set(ylabel="fraction right (IoU 0.5)", xlim=(0, 1.05))
    left.legend(frameon=False, fontsize=9, loc="upper left")
    names = {
        "score": "score, one run",
        "best_score_of_all": "score, all runs",
        "stability": "stability",
        "mask_agreement": "mask agreement",
        "minus_score_spread": "small score spread",
    }
    place = np.arange(len(content["auroc"]))
    for k, (key, label) in enumerate(names.items()):
        heights = [rows["plain"][key] for rows in content["auroc"].values()]
        bars.bar(place + (k - 2) * 0.16, heights, 0.15, label=label)
    bars.set_xticks(place, [f"{t} or more" for t in content["auroc"]])
    bars.axhline(0.5, color="0.6", linewidth=1)
    bars.set(xlabel="scores of the objects of one run", ylabel="AUROC, right against wrong")
    bars.set(ylim=(0.2, 1.19))
    bars.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
    for axis in (left, bars):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


@app.command
def batches(*, image: Path, model: str = "nano-nuclei", noises: int = 8, rounds: int = 3) -> None:
    """Seconds of processor time of several runs on one image: as batches, or one by one.

    Args:
        image: Any.
        model: Name, folder or hub id.
        noises: Runs.
        rounds: Turns; the median counts.
    """
    import time

    from diffinst.inference.spread import runs_of

    loaded = DiffusionInst.from_pretrained(model)
    given = loaded.encode(image)
    options = Options.of(loaded.config)
    pipeline = given.runner.pipeline(options)
    noise = given.runner.noise(range(noises), options)
    seconds: dict[int, list[float]] = {1: [], noises: []}
    with torch.inference_mode():
        for i in range(rounds + 1):
            for at_once, values in seconds.items():
                begin = time.process_time()
                list(runs_of(pipeline, given.encoded, noise, given.size, at_once=at_once))
                if i:
                    values.append(time.process_time() - begin)
    print({at_once: round(float(np.median(v)), 3) for at_once, v in seconds.items()})


if __name__ == "__main__":
    app()
