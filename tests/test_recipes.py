"""Do the recipes say what the paper's tables say, and does each of them train?"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import timm
import torch

from diffinst.config import Config, TrainConfig
from diffinst.models.decoder_stage import DecoderStage
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.filters import FilterLayout
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.optimizer import lr_factor, parameter_groups
from diffinst.training.step import TrainingStep

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
LISTS = (RECIPES / "README.md", ROOT / "docs" / "paper-tables.md")
PAGES = (*LISTS, ROOT / "docs" / "reproduce.md")

COCO = ("AP", "AP50", "AP75", "APS", "APM", "APL", "FPS")  # Table 1
TEST_DEV = ("AP", "APS", "APM", "APL")  # Table 2
LVIS = ("AP", "APr", "APc", "APf")  # Table 3
ABLATION = ("AP",)  # Table 4
SCHEDULES = {  # iterations and steps at batch 32 (as the published code configures them)
    "1x": (45_000, (30_000, 40_000)),
    "3x": (135_000, (105_000, 125_000)),
    "5x": (225_000, (175_000, 210_000)),
}


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables; what is not given is as in most rows.

    Attributes:
        file: Recipe, below `recipes`.
        metrics: The table's columns.
        paper: Its numbers, as printed.
        backbone, data, schedule, steps: What the row names.
        filters: "Predefined filters" at test, `trained` with how many in training.
        d: Length of a filter.
        differs: Fields in which the row leaves the model of Section 4.2.
        weights: Recipe whose training it evaluates; its own if empty.
    """

    file: str
    metrics: tuple[str, ...]
    paper: str
    backbone: str = "r50"
    data: str = "coco"
    schedule: str = "5x"
    steps: int = 1
    filters: int = 500
    trained: int = 500
    d: int = 153
    differs: dict[str, dict[str, object]] = field(default_factory=dict)
    weights: str = ""

    def __str__(self) -> str:
        return self.file


def coco(name: str, paper: str, **given: object) -> Row:
    return Row(f"coco/{name}.yaml", COCO, paper, **given)  # type: ignore[arg-type]


def on_test_dev(backbone: str, paper: str) -> Row:
    weights = f"coco/{backbone}-5x.yaml"
    file = f"coco/{backbone}-test-dev.yaml"
    return Row(file, TEST_DEV, paper, backbone, filters=100, weights=weights)


def lvis(backbone: str, paper: str) -> Row:
    return Row(f"lvis/{backbone}-3x.yaml", LVIS, paper, backbone, "lvis", "3x")


def ablation(name: str, paper: str, **given: object) -> Row:
    return Row(f"ablations/{name}.yaml", ABLATION, paper, **given)  # type: ignore[arg-type]


def mask_loss(weight: float, stages: str) -> dict[str, dict[str, object]]:
    return {"criterion": {"mask_weight": weight, "mask_stages": stages}}


def channels(c: int) -> dict[str, dict[str, object]]:
    return {"model": {"mask_branch": {"channels": c}}}


def layers(count: int) -> dict[str, dict[str, object]]:
    return {"model": {"filters": {"layers": count}}}


R50 = "coco/r50-5x.yaml"
ROWS = (
    # Table 1: AP, AP50, AP75, APS, APM, APL, FPS
    coco("r50-1x", "30.4 55.2 29.9 14.4 32.7 45.3 1.7", schedule="1x"),
    coco("r50-3x", "35.6 58.2 37.4 17.2 38.4 53.1 1.7", schedule="3x"),
    coco("r50-5x", "37.3 60.3 39.3 18.9 40.1 54.7 1.7"),
    coco("r50-5x-4step", "37.5 60.9 39.3 19.2 40.4 54.8 1.7", steps=4, weights=R50),
    coco("r101-5x", "41.0 63.9 43.9 20.7 44.4 59.9 1.6", backbone="r101"),
    coco(
        "r101-5x-4step",
        "41.1 64.3 44.0 20.8 44.4 59.8 1.6",
        backbone="r101",
        steps=4,
        weights="coco/r101-5x.yaml",
    ),
    coco("swin-b-5x", "46.6 71.4 50.2 26.7 50.5 67.1 1.8", backbone="swin-b"),
    coco("swin-l-5x", "47.8 72.8 51.9 28.4 51.7 67.8 1.2", backbone="swin-l"),
    coco(
        "swin-l-5x-4step",
        "47.8 73.0 51.8 28.6 51.7 67.8 1.1",
        backbone="swin-l",
        steps=4,
        weights="coco/swin-l-5x.yaml",
    ),
    # Table 2: AP, APS, APM, APL on test-dev with 100 filters
    on_test_dev("r50", "37.1 19.4 39.7 49.3"),
    on_test_dev("r101", "41.5 22.9 44.3 55.2"),
    on_test_dev("swin-b", "47.6 28.3 50.5 63.4"),
    on_test_dev("swin-l", "48.3 29.6 51.5 64.0"),
    # Table 3: AP, APr, APc, APf, one step
    lvis("r50", "22.3 13.9 20.7 27.0"),
    lvis("r101", "27.0 19.7 25.9 31.5"),
    lvis("swin-b", "36.0 28.7 35.7 39.5"),
    # Table 4: AP with ResNet-50, 5x, one step
    ablation("lambda-1", "34.1", differs=mask_loss(1.0, "last")),
    ablation("lambda-5", "35.1", differs=mask_loss(5.0, "last")),
    ablation("lambda-10", "34.5", differs=mask_loss(10.0, "last")),
    ablation("multi-stage", "34.2", differs=mask_loss(1.0, "all")),
    ablation("lambda-5-multi-stage", "37.3", differs=mask_loss(5.0, "all"), weights=R50),
    # d = 8c + 8 + 64 + 8 + 8 + 1: three layers, of which the first sees c channels
    ablation("channels-1", "33.8", differs=channels(1), d=97),
    ablation("channels-4", "36.9", differs=channels(4), d=121),
    ablation("channels-8", "37.3", differs=channels(8), weights=R50),
    ablation("channels-16", "37.1", differs=channels(16), d=217),
    ablation("layers-1", "33.2", differs=layers(1), d=9),
    ablation("layers-2", "36.8", differs=layers(2), d=81),
    ablation("layers-3", "37.3", differs=layers(3), d=153, weights=R50),
    ablation("layers-4", "37.3", differs=layers(4), d=225),
    ablation("proposals-100", "33.4", filters=100, trained=100),
    ablation("proposals-300", "36.7", filters=300, trained=300),
    ablation("proposals-500", "37.3", filters=500, weights=R50),
    ablation("proposals-1000", "37.4", filters=1000, trained=1000),
)
TIMM = {
    "r50": "resnet50.tv_in1k",
    "r101": "resnet101.tv_in1k",
    "swin-b": "swin_base_patch4_window7_224.ms_in22k",
    "swin-l": "swin_large_patch4_window7_224.ms_in22k",
}
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


@cache
def recipe(file: str) -> Config:
    return Config.from_file(RECIPES / file)


def comments(row: Row) -> str:
    lines = (RECIPES / row.file).read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def test_every_recipe_is_a_row_and_every_row_has_a_recipe() -> None:
    files = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.yaml"))
    assert files == sorted(row.file for row in ROWS)


@every_row
def test_a_recipe_is_its_row_and_nothing_else(row: Row) -> None:
    config = recipe(row.file)
    iterations, milestones = SCHEDULES[row.schedule]
    expected = (
        Config.from_preset(f"{row.backbone}-{row.data}")
        .updated(
            sampler={"steps": row.steps, "proposals": row.filters},
            train={
                "iterations": iterations,
                "milestones": list(milestones),
                "proposals": row.trained,
            },
        )
        .updated(**row.differs)
    )
    assert config == expected
    assert config.model.backbone.name == TIMM[row.backbone]


@every_row
def test_every_recipe_trains_as_the_paper_does(row: Row) -> None:
    # Section 4.2: AdamW, weight decay 1e-4, batch 32; lr 5e-5 there as in the published configs
    # (the text says 2.5e-5), so the rule makes it 2.5e-5 at 16 and 1.25e-5 at 8
    train = recipe(row.file).train
    assert (train.weight_decay, train.clip_norm, train.batch_size) == (1e-4, 1.0, 32)
    assert (train.scaling, train.reference_batch_size, train.lr) == ("linear", 32, 5e-5)
    assert train.scaled().model_copy(update={"scaling": "linear"}) == train
    for batch, lr in ((16, 2.5e-5), (8, 1.25e-5)):
        scaled = train.model_copy(update={"batch_size": batch}).scaled()
        assert scaled.lr == lr
        assert scaled.iterations * batch == train.iterations * 32
        assert [m * batch for m in scaled.milestones] == [m * 32 for m in train.milestones]
    first, second = train.milestones
    at = (0, 500, 1000, first - 1, first, second)  # warm-up from 0.01 over 1000, then x0.1 twice
    factors = [round(lr_factor(i, train), 6) for i in at]
    assert factors == [0.01, 0.505, 1.0, 1.0, 0.1, 0.01]


def test_classes_and_losses_of_the_two_datasets() -> None:
    # 4.1; LVIS: focal loss on 50 sampled classes, rare images repeated, 300 detections an image
    for row in ROWS:
        config = recipe(row.file)
        loss, got = config.criterion, config.postprocess.max_detections
        if row.data == "coco":
            assert (config.model.num_classes, loss.class_loss, got) == (80, "focal", 100)
            assert config.train.repeat_threshold == 0
        else:
            assert (config.model.num_classes, loss.class_loss, got) == (
                1203,
                "federated_focal",
                300,
            )
            assert (loss.federated_classes, loss.federated_power) == (50, 0.5)
            assert config.train.repeat_threshold == 0.001


@every_row
def test_the_filter_has_as_many_numbers_as_the_paper_says(row: Row) -> None:
    model = recipe(row.file).model
    assert (
        row.d
        == FilterLayout(
            model.mask_branch.channels, model.filters.channels, model.filters.layers
        ).size
    )
    assert filter_size(model.model_dump_json()) == row.d
    said = re.findall(r"d = (?:[^.=]*= )?(\d+)", comments(row))
    assert set(said) <= {str(row.d)}
    assert said or not re.search("layers|channels", row.file)


@cache
def filter_size(model: str) -> int:
    """Of the decoder's last stage; the network at full size, on no memory."""
    with torch.device("meta"):
        network = DiffusionInstNetwork(Config.from_dict({"model": json.loads(model)}).model)
    stage = network.decoder.stages[-1]
    assert isinstance(stage, DecoderStage)
    return stage.filters.out_features


def test_backbones_start_from_the_weights_that_the_paper_names() -> None:
    # "the Swin transformer backbones are pretrained on ImageNet22k with resolution 224 x 224"
    for name, classes in (("r50", 1000), ("r101", 1000), ("swin-b", 21841), ("swin-l", 21841)):
        published = timm.get_pretrained_cfg(TIMM[name])
        assert published is not None and published.hf_hub_id
        assert (published.num_classes, published.input_size) == (classes, (3, 224, 224))


def small(config: Config) -> Config:
    """The recipe's losses, stages, filters and schedule on a network and numbers of toy size."""
    classes = 60 if config.criterion.class_loss.startswith("federated") else 3  # 50 are drawn
    return config.updated(
        model={
            "num_classes": classes,
            "class_names": [],
            "backbone": {"name": "resnet10t"},
            "mask_branch": {"width": 8, "depth": 1},
            "decoder": {
                "width": 32,
                "dynamic_width": 8,
                "heads": 4,
                "feedforward": 32,
                "box_layers": 1,
            },
        },
        train={"proposals": config.train.proposals // 20},
    )


def two_objects(classes: int) -> Targets:
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 60]])
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:40, 4:30] = True
    masks[1, 10:60, 20:60] = True
    return Targets(boxes, torch.tensor([1, classes - 1]), masks, image_id=0)


@every_row
def test_a_step_of_the_recipe_trains_a_toy_network(row: Row) -> None:
    config = small(recipe(row.file))
    classes, train = config.model.num_classes, config.train
    torch.manual_seed(0)
    network = DiffusionInstNetwork(config.model)
    criterion = Criterion(config.criterion, torch.arange(1, classes + 1))
    step = TrainingStep(network, criterion, train.proposals).train()
    groups = parameter_groups(network, train)
    optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: lr_factor(i, train))
    images = ImageBatch(torch.rand(1, 3, 64, 64) * 255, ((64, 64),))
    output = step(images, [two_objects(classes)])
    assert output.start.shape == (1, row.trained // 20, 4) and len(output.stages) == 6
    assert output.stages[-1].filters.shape[-1] == row.d
    masks = [name for name in output.losses if name.startswith("loss/dice")]
    assert len(masks) == (1 if config.criterion.mask_stages == "last" else 6)
    assert all(bool(value.isfinite()) for value in output.losses.values())

    output.losses["loss"].backward()
    learning = {n: p for n, p in network.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in learning.values())
    for i in range(6):  # the mask loss is the only one that reaches the filters
        grad = learning[f"decoder.stages.{i}.filters.weight"].grad
        assert grad is not None
        assert bool(grad.any()) == (i == 5 or config.criterion.mask_stages == "all")
    before = {n: p.detach().clone() for n, p in learning.items()}
    optimizer.step()
    schedule.step()
    moved = max(float((p - before[n]).detach().abs().max()) for n, p in learning.items())
    assert moved == pytest.approx(5e-5 * 0.01, rel=0.05)  # Adam's first step is one lr, warming up


@pytest.mark.parametrize("row", [row for row in ROWS if row.weights], ids=str)
def test_a_recipe_without_training_of_its_own_fits_the_weights_it_evaluates(row: Row) -> None:
    own, trained = recipe(row.file), recipe(row.weights)
    assert own.updated(sampler=trained.sampler.model_dump()) == trained
    assert "diffinst train" not in comments(row)
    assert "nothing else is trained" in comments(row)
    assert Path(row.weights).name in comments(row)
    assert Path(row.file).name in comments(next(r for r in ROWS if r.file == row.weights))


@every_row
def test_a_recipe_quotes_its_row_and_gives_the_commands(row: Row) -> None:
    said = re.search(r"^# Paper: (.*)\.$", comments(row), flags=re.MULTILINE)
    assert said is not None
    pairs = dict(zip(row.metrics, row.paper.split(), strict=True))
    fps = pairs.pop("FPS", None)
    quoted = [f"{name} {value}" for name, value in pairs.items()] + [f"{fps} FPS"] * bool(fps)
    assert said[1] == ", ".join(quoted)
    commands = [shlex.split(c) for c in re.findall(r"^# +(diffinst .*)", comments(row), flags=re.M)]
    runs = set()
    for words in commands:
        flags = dict(zip(words[2::2], words[3::2], strict=False))
        assert flags["--data"] == f"datasets/{row.data}"
        if words[1] == "train":
            assert flags["--config"] == f"recipes/{row.file}"
            runs.add(flags["--out"])
    last = commands[-1]
    assert last[1] == "eval"
    flags = dict(zip(last[2::2], last[3::2], strict=False))
    if row.weights:
        assert flags["--model"] == f"runs/{Path(row.weights).stem}"
        assert flags.get("--steps", "1") == str(row.steps)
        assert flags.get("--proposals", "500") == str(row.filters)
    else:
        assert runs == {flags["--model"]}  # which keeps steps and proposals of its recipe
    assert flags.get("--split", "val") == ("test-dev" if row.metrics == TEST_DEV else "val")


@pytest.mark.parametrize("page", LISTS, ids=lambda page: page.name)
def test_the_lists_name_every_row_once(page: Path) -> None:
    links = re.findall(r"^\|.*?\]\(([^)]*\.yaml)\)", page.read_text(), flags=re.MULTILINE)
    linked = [str((page.parent / link).resolve().relative_to(RECIPES)) for link in links]
    assert sorted(linked) == sorted(row.file for row in ROWS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_point_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all((page.parent / link).exists() for link in links)
    assert all((ROOT / file).is_file() for file in re.findall(r"--config (\S+\.yaml)", text))


@every_row
def test_the_page_of_tables_shows_the_papers_numbers_and_ours(row: Row) -> None:
    page = LISTS[1].read_text()
    (line,) = [line for line in page.splitlines() if f"recipes/{row.file})" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    numbers = re.findall(r"\d+\.\d", " ".join(cells[2:]))
    first, *others = row.paper.split()
    assert cells[2] == first
    assert " / ".join(others) in line
    assert "not run" in line and numbers == [first, *others]


def test_what_was_measured_on_small_data_is_what_the_benchmark_wrote() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "nano-nuclei.json").read_text())
    measured = {r["pair"]: r for r in results["rows"] if r["sampler"] == "search"}
    lines = re.findall(r"^\| (\d+) \| (.*) \|$", LISTS[1].read_text(), flags=re.MULTILINE)
    assert [int(proposals) for proposals, _ in lines] == [100, 300, 500]
    for proposals, cells in lines:
        for steps, cell in zip((1, 4), cells.split(" | "), strict=True):
            own = measured[f"{steps}x{proposals}"]
            assert cell == f"{100 * own['mask/AP']:.1f} ({100 * own['mask/AP50']:.1f})"


def test_the_guide_gives_the_same_schedules() -> None:
    text = PAGES[2].read_text()
    for name, (iterations, (first, second)) in SCHEDULES.items():
        assert f"| {name} | {iterations:,} | {first:,} and {second:,} |" in text
    small_batch = TrainConfig(batch_size=4, scaling="linear").scaled()  # the guide's example
    assert small_batch.lr == 6.25e-6 and "(6.25e-6)" in text
    assert small_batch.iterations == 1_800_000 and "(1.8 M iterations)" in text
