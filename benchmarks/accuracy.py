"""The same data, backbone, windows and time: is `nano` at least as good as Mask R-CNN?

    python benchmarks/accuracy.py race --name nuclei --data DATA --weights mobilenetv2_100.st
    python benchmarks/accuracy.py table

For each seed, `diffinst train` and `benchmarks/peer.py train` run in alternation: one is stopped
while the other works, a slice of seconds each, so that other load on the machine hits both alike.
Learning-rate schedules need the number of iterations in advance: both are timed first, in
alternation as well, and iterations = budget / seconds an iteration. Then both are scored by the
same evaluator, and timed in turns on the same images, a process each.

A finished run leaves a JSON file and is not run again; so does each finished part of a run, in its
run folder. The table is made from these files.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import App
from turns import Server, Worker, peak_gib, seconds_between

from diffinst.config import Config
from diffinst.io.atomic import atomic_path, write_json
from diffinst.kernels.machine import machine

app = App()
HERE = Path(__file__).parent
RESULTS = HERE / "results"
Side = Literal["nano", "mask-rcnn"]
SIDES: tuple[Side, ...] = ("nano", "mask-rcnn")
TIMED_IMAGES, TIMED_ROUNDS = 10, 3
SETTLED = 10  # the first iterations are not timed
Json = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """What is set for a dataset, as one would on looking at its images.

    Attributes:
        ours: Fields of the `nano` configuration; those of the data (windows, zoom, detections
            kept, `train.single_class`) hold for both sides.
        peer: Flags of `peer.py train`.
        sampling: Steps and proposals with which ours is scored and timed, one training for all.
            Mask R-CNN's second stage sees 1000 proposals.
    """

    ours: dict[str, Json]
    peer: dict[str, str]
    sampling: tuple[str, ...] = ("1x500", "1x1000", "4x500")


CONTESTS = {
    "nuclei": Contest(
        ours={
            "model": {"diffusion": {"size_pixels": 128}},
            "augment": {"vertical_flip": 0.5, "transpose": 0.5, "colour": 0.2},
            "postprocess": {"max_detections": 500},
            "train": {"warmup": 100, "ema": 0.99},
        },
        peer={"anchors": "8", "regions": "256", "detections": "500"},
    ),
    "coco_mini": Contest(
        ours={
            "augment": {"colour": 0.2, "zoom": [0.6, 1.25]},
            "preprocess": {"short_side": None, "zoom": 1.0},
            "train": {"warmup": 100, "ema": 0.99, "single_class": True},
        },
        peer={"anchors": "24", "regions": "256", "detections": "100"},
    ),
}


@app.command
def race(
    *,
    name: str,
    data: Path,
    weights: Path,
    seeds: tuple[int, ...] = (0, 1),
    minutes: float = 15.0,
    slice_seconds: float = 20.0,
    calibration: int = 40,
    runs: Path = Path("runs/accuracy"),
    results: Path = RESULTS,
) -> None:
    """Train, score and time both sides; the same command again goes on after a break.

    Args:
        name: One of the contests above.
        data: COCO-format folder.
        weights: ImageNet weights of the backbone.
        seeds: One race each.
        minutes: Wall clock in which a side may work; CPU time is twice as much on two threads.
        slice_seconds: How long one works before it is the other's turn.
        calibration: Iterations of each of the two timing runs of a side.
        runs: Where runs are kept.
        results: Where the JSON files and the table go.
    """
    if name not in CONTESTS:
        raise ValueError(f"--name {name}: there are {', '.join(CONTESTS)}")
    contest = CONTESTS[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it stopped, as Ctrl-C does
    for seed in seeds:
        files = {side: results / f"accuracy-{name}-{side}-seed{seed}.json" for side in SIDES}
        if all(file.is_file() for file in files.values()):
            continue
        run = Run(contest, data, runs / f"{name}-seed{seed}-{minutes:g}min", weights, seed)
        pace = run.part("pace", lambda: run.calibrate(calibration))  # noqa: B023
        iterations = {side: max(1, int(minutes * 60 / pace[side])) for side in SIDES}
        print(f"{name}, seed {seed}: seconds an iteration {pace}, iterations {iterations}")
        used = run.part("training", lambda: run.train(iterations, slice_seconds))  # noqa: B023
        found = {side: run.score(side) for side in SIDES}
        speed = run.part("prediction", run.time)
        for side, file in files.items():
            content = {
                "contest": name,
                "side": side,
                "seed": seed,
                "minutes": minutes,
                "machine": machine("cpu") | {"load": os.getloadavg()},
                "settings": contest.ours if side == "nano" else contest.peer,
                "calibrated_seconds_per_iteration": pace[side],
                "iterations": iterations[side],
                "training": used[side],
                "val": found[side],
                "prediction": speed[side],
            }
            write_json(file, content)
    table(results=results)


class Run:
    """One race in one folder.

    Args:
        contest: The settings.
        data: COCO-format folder.
        folder: Everything it writes.
        weights: Of the backbone.
        seed: Of both sides' training.
    """

    def __init__(
        self, contest: Contest, data: Path, folder: Path, weights: Path, seed: int
    ) -> None:
        self.contest, self.data, self.folder = contest, data, folder
        shared: dict[str, dict[str, object]] = {
            "model": {"backbone": {"weights_file": str(weights.resolve())}},
            "train": {"workers": 1, "seed": seed},
        }
        config = Config.from_preset("nano").updated(**contest.ours).updated(**shared)
        self.single_class = config.train.single_class
        self.detections = config.postprocess.max_detections
        self.config = folder / "nano.json"
        write_json(self.config, config.to_dict())
        self.train_only = folder / "data"  # without val, so that training is all that is timed
        (self.train_only / "annotations").mkdir(parents=True, exist_ok=True)
        for part in ("annotations/instances_train.json", "train"):
            link = self.train_only / part
            if not link.exists():
                link.symlink_to((data / part).resolve())

    def part(self, name: str, make: Any) -> Json:
        """A finished part from its file, or made and kept."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            write_json(file, make())
        values: Json = json.loads(file.read_text("utf-8"))
        return values

    def command(self, side: Side, out: Path, iterations: int, log_every: int) -> list[str]:
        """The training command of a side."""
        common = ["--data", self.train_only, "--config", self.config, "--out", out]
        if side == "nano":
            start = ["-c", "from diffinst.cli import main; main()", "train"]
            flags = ["--train.iterations", iterations, "--train.checkpoint-every", iterations]
            flags += ["--train.log-every", log_every]
        else:
            start = [str(HERE / "peer.py"), "train"]
            flags = ["--iterations", iterations, "--log-every", log_every]
            flags += [f"--peer.{key}={value}" for key, value in self.contest.peer.items()]
        return [str(word) for word in (sys.executable, *start, *common, *flags)]

    def calibrate(self, iterations: int) -> Json:
        """Seconds of an iteration of each side, each run twice, in turns.

        The lower quartile between time stamps: what it costs while others use the machine least.
        """
        gaps: dict[Side, list[float]] = {side: [] for side in SIDES}
        for turn in range(2):
            for side in SIDES:
                out = unused(self.folder / f"calibration-{side}-{turn}")
                with Worker(self.command(side, out, iterations, 5), out) as worker:
                    worker.work()
                gaps[side] += seconds_between(out / "logs", "loss/total", SETTLED)
        return {side: statistics.quantiles(values, n=4)[0] for side, values in gaps.items()}

    def train(self, iterations: dict[Side, int], slice_seconds: float) -> Json:
        """Both sides in slices; what each used."""
        with ExitStack() as stack:
            workers = {}
            for side in SIDES:
                out = unused(self.folder / side)
                worker = Worker(self.command(side, out, iterations[side], 20), out)
                workers[side] = stack.enter_context(worker)
            while any(worker.running for worker in workers.values()):
                for worker in workers.values():
                    if worker.running:
                        worker.work(slice_seconds)
            return {side: worker.used() for side, worker in workers.items()}

    def score(self, side: Side) -> Json:
        """Metrics on val; ours by steps and proposals."""
        file = self.folder / f"val-{side}.json"
        if not file.is_file():
            start = [str(HERE / "peer.py"), "eval"]
            if side == "nano":
                sampling = (f"--sampling={kind}" for kind in self.contest.sampling)
                start = [__file__, "score", *sampling]
            flags = ["--data", str(self.data), "--model", str(self.folder / side)]
            flags += ["--single-class"] * self.single_class
            log = self.folder / f"val-{side}-log"
            with Worker([sys.executable, *start, *flags, "--out", str(file)], log) as worker:
                worker.work()
        values: Json = json.loads(file.read_text("utf-8"))
        return values

    def time(self) -> Json:
        """Seconds an image and peak memory, in turns on the same images."""
        from diffinst.datasets.load import load_split

        records = load_split(self.data, "val").records
        stride = max(1, len(records) // TIMED_IMAGES)
        paths = [str(records[i * stride].path) for i in range(min(TIMED_IMAGES, len(records)))]
        kinds = (*self.contest.sampling, "mask-rcnn")
        servers: dict[str, Server] = {}
        for kind in kinds:
            side: Side = "mask-rcnn" if kind == "mask-rcnn" else "nano"
            flags = [f"--kind={kind}", f"--model={self.folder / side}"]
            flags += [f"--detections={self.detections}"]
            servers[kind] = Server([sys.executable, __file__, "serve", *flags])
            servers[kind].ask(paths[0])  # warm-up
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for path in paths:
            rounds = [{k: s.ask(path) for k, s in servers.items()} for _ in range(TIMED_ROUNDS)]
            for kind in kinds:
                seconds[kind].append(statistics.median(r[kind] for r in rounds))
        found = {
            kind: {
                "seconds_per_image": statistics.mean(seconds[kind]),
                "fastest": min(seconds[kind]),
                "slowest": max(seconds[kind]),
                "peak_gib": servers[kind].close(),
            }
            for kind in kinds
        }
        rival = found.pop("mask-rcnn")
        return {"nano": found, "mask-rcnn": rival}


def unused(folder: Path) -> Path:
    """The folder's name; what an interrupted run left there is renamed."""
    if folder.exists():
        aside = next(
            path for i in range(1, 10**6) if not (path := Path(f"{folder}-broken{i}")).exists()
        )
        folder.rename(aside)
    return folder


@app.command
def score(
    *, data: Path, model: Path, out: Path, sampling: tuple[str, ...], single_class: bool = False
) -> None:
    """Metrics of a model of ours on val, by steps and proposals ("4x500")."""
    from diffinst.datasets.load import load_split
    from diffinst.evaluation.evaluate import evaluate
    from diffinst.inference.predictor import DiffusionInst

    loaded, split = (
        DiffusionInst.from_pretrained(model),
        load_split(data, "val", single_class=single_class),
    )
    found = {}
    for kind in sampling:
        steps, proposals = map(int, kind.split("x"))
        found[kind] = evaluate(loaded, split, steps=steps, proposals=proposals).as_dict()
    write_json(out, found)


@app.command
def serve(*, kind: str, model: Path, detections: int) -> None:
    """Predict each image named on stdin, print the seconds; an empty line: print peak GiB."""
    if kind != "mask-rcnn":
        from diffinst.inference.predictor import DiffusionInst

        ours = DiffusionInst.from_pretrained(model)
        ids = tuple(range(ours.config.model.num_classes))
        steps, proposals = map(int, kind.split("x"))

        def predict(path: Path) -> object:
            found = ours.predict(
                path, steps=steps, proposals=proposals, threshold=0.0, max_detections=detections
            )
            return found.to_coco(0, ids, boxes="predicted")

    else:
        from peer import Predictor, to_coco

        rival = Predictor(model)
        ids = tuple(range(rival.config.model.num_classes))

        def predict(path: Path) -> object:
            return to_coco(rival.predict(path), 0, ids)

    for line in sys.stdin:
        if not line.strip():
            print(peak_gib(), flush=True)
            return
        begin = time.perf_counter()
        predict(Path(line.strip()))
        print(time.perf_counter() - begin, flush=True)


@app.command
def table(*, results: Path = RESULTS) -> None:
    """Write and print `accuracy.md` from the JSON files."""
    columns = "data|model|seed|mask AP|AP50|s an image|peak GiB|iterations|training s|CPU s|GiB"
    names = columns.split("|")
    rows = [names, ["---"] * len(names)]
    for file in sorted(results.glob("accuracy-*-seed*.json")):
        run = json.loads(file.read_text("utf-8"))
        used = run["training"]
        kinds = {run["side"]: (run["val"], run["prediction"])}
        if run["side"] == "nano":
            kinds = {
                _described(kind): (val, run["prediction"][kind]) for kind, val in run["val"].items()
            }
        for kind, (val, prediction) in kinds.items():
            scores = [f"{val['mask/AP']:.3f}", f"{val['mask/AP50']:.3f}"]
            cost = [f"{prediction['seconds_per_image']:.2f}", f"{prediction['peak_gib']:.2f}"]
            cost += [str(run["iterations"]), f"{used['seconds']:.0f}"]
            cost += [f"{used['cpu_seconds']:.0f}", f"{used['peak_gib']:.2f}"]
            rows.append([run["contest"], kind, str(run["seed"]), *scores, *cost])
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    with atomic_path(results / "accuracy.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


def _described(kind: str) -> str:
    """4x500 in words."""
    steps, proposals = kind.split("x")
    return f"nano, {steps} step{'s' * (steps != '1')}, {proposals} proposals"


if __name__ == "__main__":
    app()
