"""Is diffinst as fast as Mask R-CNN, and in as little memory? Both in turns on one machine.

    python benchmarks/speed.py  # or: make bench; --no-training leaves the slow half away

The baseline is torchvision's Mask R-CNN R50-FPN in float32. One image of 800 x 1216, nothing is
resized, up to 100 instances painted at full size; weights are random on both sides, so the rival's
score threshold is zero and it, too, draws 100 masks. On a GPU its masks stay there at full size,
ours end as masks in boxes in the host's memory. Each round runs every contestant once; the
ratio is taken within a round, and the median over rounds is printed. Training iterations run in a
process each, one at a time: `diffinst train` tells the C library to keep freed memory, the rival's
process is left as it is; a second race tells both. `others` adds peers whose package is installed.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cyclopts import App
from peers import PEERS
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d
from turns import Server

from diffinst.acceleration.optimize import Precision
from diffinst.config import Config
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_json
from diffinst.kernels.machine import machine
from diffinst.kernels.memory import keep_freed_memory
from diffinst.measure.benchmark import (
    Workload,
    noise_image,
    peak_gib,
    predict,
    ready,
)
from diffinst.measure.limits import count
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.step import TrainingStep

app = App()
RESULTS = Path(__file__).parent / "results"
SIZE = (800, 1216)
OBJECTS = 10  # of an image of the training iteration
IMAGES = {"cpu": 2, "cuda": 16}  # in its batch
RIVAL = "Mask R-CNN fp32"
SWIFT = "nano 512 px, 100 proposals, 1 step fp32"  # its goal is images a second
KINDS = ("prediction", "training", "training, rival keeps freed memory too", "prediction, peers")
Run = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """Who runs what, and what is aimed at.

    Attributes:
        precision: As in `DiffusionInst.optimize`.
        steps: Denoising steps; 0: a training iteration.
        target: Time as a multiple of the rival's; None: none.
        memory: Peak memory as a multiple of the rival's; None: none.
        batch: Images at once; seconds are of one.
        compiled: Whether the network is compiled.
        rate: Images a second that are aimed at; None: none.
    """

    precision: Precision
    steps: int
    target: float | None = None
    memory: float | None = None
    batch: int = 1
    compiled: bool = False
    rate: float | None = None

    def workload(self) -> Workload:
        """As `ready` takes it."""
        return Workload(
            SIZE, self.steps, batch=self.batch, precision=self.precision, compiled=self.compiled
        )


ON_CPU = {
    "diffinst 1 step fp32": Contestant("fp32", 1, 1.0),
    "diffinst 1 step bf16": Contestant("bf16", 1, 0.55),
    "diffinst 4 steps fp32": Contestant("fp32", 4, 1.8, 1.0),
    "diffinst 4 steps bf16": Contestant("bf16", 4, 1.0, 1.0),
}
ON_GPU = {
    "diffinst 1 step fp32": Contestant("fp32", 1),
    "diffinst 4 steps fp32": Contestant("fp32", 4),
    "diffinst 1 step bf16": Contestant("bf16", 1),
    "diffinst 1 step bf16 compiled": Contestant("bf16", 1, compiled=True, rate=100),
    "diffinst 4 steps bf16 compiled": Contestant("bf16", 4, memory=1.0, compiled=True, rate=60),
} | {
    f"diffinst 1 step bf16 compiled, batch {n}": Contestant(
        "bf16", 1, batch=n, compiled=True, rate=200
    )
    for n in (4, 16, 32)
}
TRAINING = {
    "diffinst training fp32": Contestant("fp32", 0, 1.0),
    "diffinst training bf16": Contestant("bf16", 0, 0.6),
}


@app.default
def speed(
    *,
    rounds: int = 7,
    training: bool = True,
    device: str = "cpu",
    results: Path = RESULTS,
) -> None:
    """Measure, print the table, write JSON and Markdown.

    Args:
        rounds: Turns of each contestant, after one to warm up; half as many for training.
        training: A training iteration as well.
        device: cpu or cuda.
        results: Folder of `speed-DEVICE.json` and `.md`.
    """
    place = torch.device(device)
    entered = prediction(place)
    seconds = race({RIVAL: rival(place), **ours(place)}, rounds, place)
    for name, contestant in entered.items():
        seconds[name] = [s / contestant.batch for s in seconds[name]]
    content: dict[str, Any] = {"kind": place.type, "machine": machine(place)}
    content["prediction"] = seconds
    content["peak_gib"] = {name: memory(name, device) for name in (RIVAL, *entered)}
    if training:
        for kind, equal in zip(KINDS[1:3], (False, True), strict=True):
            content[kind], peaks = race_training(device, rounds // 2 + 1, all_keep_memory=equal)
            content[f"peak_gib, {kind}"] = peaks
    write(content, results)


@app.command
def others(*, rounds: int = 4, device: str = "cpu", results: Path = RESULTS) -> None:
    """Race the peers of `peers.py` with Mask R-CNN, and add them to the results of `speed`.

    Apart from ours, as the memory that a model leaves behind changes the times of the next.
    """
    place = torch.device(device)
    content = json.loads((results / f"speed-{place.type}.json").read_text("utf-8"))
    runs = {name: make(SIZE, place) for name, make in PEERS.items()}
    content[KINDS[-1]] = race({RIVAL: rival(place), **runs}, rounds, place)
    content[f"peak_gib, {KINDS[-1]}"] = {name: memory(name, device) for name in (RIVAL, *runs)}
    write(content, results)


def write(content: dict[str, Any], results: Path) -> None:
    """JSON, Markdown, and the terminal."""
    text, name = table(content), f"speed-{content['kind']}"
    write_json(results / f"{name}.json", content)
    with atomic_path(results / f"{name}.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


def prediction(device: torch.device) -> dict[str, Contestant]:
    """Who predicts on a kind of device."""
    return ON_GPU if device.type == "cuda" else ON_CPU


def race(runs: dict[str, Run], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, round by round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            begin = now(device)
            run()
            if i:
                seconds[name].append(now(device) - begin)
        print(f"round {i} of {rounds}", file=sys.stderr)
    return seconds


def race_training(
    device: str, rounds: int, *, all_keep_memory: bool
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of training iterations in turns, and peak GiB; ours set up as by `diffinst train`.

    Args:
        device: cpu or cuda.
        rounds: Turns of each after two to warm up.
        all_keep_memory: The rival's process keeps freed memory, too, which its scripts do not.
    """
    servers = {}
    for name in (RIVAL, *TRAINING):
        command = [sys.executable, __file__, "train", f"--name={name}", f"--device={device}"]
        command += ["--keep-memory"] * (all_keep_memory or name != RIVAL)
        servers[name] = Server(command)
    runs: dict[str, Run] = {n: functools.partial(s.ask, "go") for n, s in servers.items()}
    for run in runs.values():
        run()
    seconds = race(runs, rounds, torch.device("cpu"))  # each waits for its own device
    return seconds, {name: server.close() for name, server in servers.items()}


@app.command
def train(*, name: str, device: str, keep_memory: bool = False) -> None:
    """A training iteration for each line on stdin; prints its seconds. An empty line ends it."""
    place = torch.device(device)
    if keep_memory:
        keep_freed_memory()
    run = train_rival(place) if name == RIVAL else train_ours(TRAINING[name].precision, place)
    for line in sys.stdin:
        if not line.strip():
            print(peak_gib(place), flush=True)
            return
        begin = now(place)
        run()
        print(now(place) - begin, flush=True)


@app.command
def flops(*, device: str = "cpu") -> None:
    """Floating-point operations of a training iteration of both sides."""
    place = torch.device(device)
    for name, run in ((RIVAL, train_rival(place)), ("diffinst", train_ours("fp32", place))):
        work = count(run)
        print(f"{name}: {(work.convolution + work.matmul) / 1e9:.0f} GFLOP")


def now(device: torch.device) -> float:
    """Seconds, once all work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rival(device: torch.device) -> Run:
    """A prediction of Mask R-CNN."""
    model = build_rival(device).eval()
    image = torch.from_numpy(noise_image(SIZE)).permute(2, 0, 1).to(device)

    def run() -> Tensor:
        with torch.inference_mode():
            found = model([image.float() / 255])[0]
            masks: Tensor = found["masks"][:, 0] >= 0.5
        assert len(masks) == 100
        return masks

    return run


def build_rival(device: torch.device) -> MaskRCNN:
    """torchvision's model with 80 classes, frozen as it freezes pretrained weights, and as ours.

    Stem and first stage and all norms keep their values; nothing is dropped for its score.
    """
    torch.manual_seed(0)
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, trainable_layers=3)
    return MaskRCNN(backbone, 81, box_score_thresh=0.0).to(device)


def ours(device: torch.device) -> dict[str, Run]:
    """Our predictions by name."""
    model = DiffusionInst.from_preset("r50-coco", device=device)
    small = DiffusionInst.from_preset("nano", device=device)
    image, little = noise_image(SIZE), [noise_image((512, 512))]
    finish = predict if device.type == "cpu" else DiffusionInst.predict
    made: dict[str, Run] = {}
    for name, contestant in prediction(device).items():
        fast, images = ready(model, contestant.workload()), [image] * contestant.batch
        made[name] = lambda fast=fast, images=images: finish(fast, images)  # type: ignore[misc]
    swift = ready(small, Workload((512, 512), 1, 100))
    made[SWIFT] = lambda: finish(swift, little)
    return made


def objects(count: int = OBJECTS) -> Targets:
    """Boxes of several sizes with elliptic masks."""
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE
    limit = torch.tensor([width, height])
    sides = torch.rand(count, 2, generator=generator) * 300 + 30
    low = torch.rand(count, 2, generator=generator) * (limit - sides)
    boxes = torch.cat([low, low + sides], 1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre, half = low + sides / 2, sides / 2
    away = ((x - centre[:, :1, None]) / half[:, :1, None]) ** 2
    away = away + ((y - centre[:, 1:, None]) / half[:, 1:, None]) ** 2
    return Targets(boxes, torch.arange(count) % 80, away <= 1)


def train_rival(device: torch.device) -> Run:
    """A training iteration of Mask R-CNN."""
    model = build_rival(device).train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    image = torch.from_numpy(noise_image(SIZE)).permute(2, 0, 1).to(device).float() / 255
    wanted = objects().to(device)
    target = {
        "boxes": wanted.boxes,
        "labels": wanted.labels + 1,
        "masks": wanted.masks.to(torch.uint8),
    }

    count = IMAGES[device.type]

    def run() -> None:
        optimizer.zero_grad()
        losses: dict[str, Tensor] = model([image] * count, [target] * count)
        sum(losses.values(), torch.zeros((), device=device)).backward()
        optimizer.step()

    return run


def train_ours(precision: Precision, device: torch.device) -> Run:
    """A training iteration of the paper's R50 model."""
    config = Config.from_preset("r50-coco")
    torch.manual_seed(0)
    network = DiffusionInstNetwork(config.model).to(device)
    step = TrainingStep(network, Criterion(config.criterion), config.train.proposals).to(device)
    step.train()
    learning = (p for p in step.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(learning, lr=1e-5, fused=True)
    pixels = torch.from_numpy(noise_image(SIZE)).permute(2, 0, 1).to(device)
    count = IMAGES[device.type]
    images = ImageBatch(torch.stack([pixels] * count), (SIZE,) * count)
    targets = [objects().to(device)] * count
    draws = step.draw(targets, torch.Generator().manual_seed(0))

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses = step(images, targets, draws).losses
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), config.train.clip_norm)
        optimizer.step()

    return run


def memory(name: str, device: str) -> float:
    """Peak GiB of a process that predicts once."""
    command = [sys.executable, __file__, "peak", f"--name={name}", f"--device={device}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


@app.command
def peak(*, name: str, device: str) -> None:
    """Predict once and print the peak memory in GiB."""
    place = torch.device(device)
    if name == RIVAL:
        rival(place)()
    elif name in PEERS:
        PEERS[name](SIZE, place)()
    else:
        keep_freed_memory()  # as the commands do
        contestant = prediction(place)[name]
        fast = ready(DiffusionInst.from_preset("r50-coco", device=device), contestant.workload())
        predict(fast, [noise_image(SIZE)] * contestant.batch)
    print(peak_gib(place))


def table(content: dict[str, Any]) -> str:
    """Markdown from the JSON: seconds, ratios, targets."""
    where = content["machine"]
    lines = [f"{where['device']}, {where['threads']} threads, torch {where['torch']}\n"]
    for kind in KINDS:
        if kind not in content:
            continue
        lines.append(f"| {kind} | s | ratio | range | target | peak GiB | ratio | target |")
        lines.append("|---|---|---|---|---|---|---|---|")
        for name, seconds in content[kind].items():
            lines.append(f"| {' | '.join([name, *cells(content, kind, name, seconds)])} |")
        lines.append("")
    entered = prediction(torch.device(content["kind"]))
    rates = {name: c.rate for name, c in entered.items()} | {SWIFT: 8.0}
    for name, seconds in content["prediction"].items():
        if rates.get(name) is not None:
            rate = 1 / statistics.median(seconds)
            lines.append(f"- {name}: {rate:.1f} images/s (target: {rates[name]:g})")
    if KINDS[1] in content:
        exact, rounded = (content[KINDS[1]][name] for name in TRAINING)
        ratio = statistics.median(e / r for e, r in zip(exact, rounded, strict=True))
        goal = " (target: 2)" if content["kind"] == "cuda" else ""
        lines.append(f"- diffinst training: bf16 is {ratio:.2f} times as fast as fp32{goal}")
    return "\n".join(lines) + "\n"


def cells(content: dict[str, Any], kind: str, name: str, seconds: list[float]) -> list[str]:
    """One row of the table."""
    goal = {**prediction(torch.device(content["kind"])), **TRAINING}.get(name)
    ratios = [mine / theirs for mine, theirs in zip(seconds, content[kind][RIVAL], strict=True)]
    row = [f"{statistics.median(seconds):.3g}", f"{statistics.median(ratios):.2f}"]
    row += [f"{min(ratios):.2f}-{max(ratios):.2f}", _goal(goal.target if goal else None)]
    peaks = content["peak_gib" if kind == "prediction" else f"peak_gib, {kind}"]
    gib = peaks.get(name)
    if gib is None:
        return [*row, "", "", ""]
    share = gib / peaks[RIVAL]
    return [*row, f"{gib:.2f}", f"{share:.2f}", _goal(goal.memory if goal else None)]


def _goal(value: float | None) -> str:
    return "" if value is None else f"<= {value:g}"


if __name__ == "__main__":
    app()
