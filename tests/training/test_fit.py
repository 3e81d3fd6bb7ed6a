"""Does a run leave a model behind, and does one that was cut off go on as if nothing had been?"""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffinst import checkpoint
from diffinst.config import Config
from diffinst.data.load import load_split
from diffinst.data.synthetic import make_shapes
from diffinst.training.criterion import Criterion
from diffinst.training.fit import RunLog, class_counts, fit
from diffinst.training.step import TrainingStep

ITERATIONS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, so that a batch of two straddles epochs."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=3, val=2, size=(48, 64), objects=(1, 3))


def config(**train: object) -> Config:
    """Small pictures; federated classes and stochastic depth, whose draws a resume must repeat."""
    small = {
        "iterations": ITERATIONS,
        "checkpoint_every": 2,
        "log_every": 1,
        "warmup": 2,
        "proposals": 8,
        "lr": 3e-4,
    }
    return Config.from_preset("tiny").updated(
        model={"backbone": {"drop_path": 0.3, "norm": "train"}},
        criterion={"class_loss": "federated_focal", "federated_classes": 3},
        augment={"short_sides": [48, 64]},
        preprocess={"short_side": 48},
        sampler={"proposals": 8},
        train={**small, **train},
    )


def run(data: Path, out: Path, chosen: Config, *, resume: bool = False) -> Path:
    return fit(data, chosen, out, resume=resume, pretrained=False, progress=False)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(out: Path) -> dict[int, str]:
    """Total loss of each step; a step is logged once."""
    logged = [(int(r["step"]), r["loss/total"]) for r in rows(out) if r.get("loss/total")]
    assert len(dict(logged)) == len(logged)
    return dict(logged)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("finished"), config(ema=0.9, eval_every=5))


class Cut(Exception):
    """The power goes out."""


def cut_off(
    data: Path, out: Path, chosen: Config, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies in step `steps` + 1."""
    forward, count = TrainingStep.forward, 0

    def dying(self: TrainingStep, *arguments: object) -> object:
        nonlocal count
        count += 1
        if count > steps:
            raise Cut
        return forward(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "forward", dying)
        with pytest.raises(Cut):
            run(data, out, chosen)


def test_a_run_leaves_a_model_and_its_records(data: Path, finished: Path) -> None:
    network, saved = checkpoint.load(finished)
    assert saved.model.class_names == load_split(data, "train").classes
    assert saved.train.iterations == ITERATIONS and network.config == saved.model
    assert Config.from_file(finished / "run.json").criterion == saved.criterion
    assert (finished / "checkpoints" / "last.ckpt").is_file()
    assert list((finished / "logs").glob("events.out.tfevents.*"))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"val/mask/AP", "val/box/AP"} <= metrics.keys()


def test_every_step_is_logged_with_all_terms_and_its_rate(finished: Path) -> None:
    assert sorted(losses(finished)) == list(range(ITERATIONS))
    first = next(r for r in rows(finished) if r.get("loss/total"))
    terms = [float(v) for k, v in first.items() if k.startswith("loss/") and k != "loss/total"]
    assert len(terms) == 2 * 4  # two stages
    assert float(first["loss/total"]) == pytest.approx(sum(terms), rel=1e-4)
    assert any(k.startswith("lr") for k in rows(finished)[0])


@pytest.mark.parametrize("steps", [3, 7])
def test_a_run_that_was_cut_off_goes_on_exactly(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    # early and late: less, then more than half of the stream is behind the checkpoint
    chosen = config(ema=0.9, eval_every=5)
    cut_off(data, tmp_path, chosen, steps, monkeypatch)
    assert not (tmp_path / checkpoint.WEIGHTS_FILE).exists()
    run(data, tmp_path, chosen, resume=True)
    assert losses(tmp_path) == losses(finished)  # rows from before the cut are there, too
    whole, resumed = (load_file(f / checkpoint.WEIGHTS_FILE) for f in (finished, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_the_average_is_saved_also_by_a_run_resumed_at_its_end(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(ema=0.9, eval_every=5)
    with monkeypatch.context() as patch:  # dies between the last checkpoint and the model folder

        def die(*_: object) -> None:
            raise Cut

        patch.setattr(checkpoint, "save", die)
        with pytest.raises(Cut):
            run(data, tmp_path, chosen)
    run(data, tmp_path, chosen, resume=True)
    whole, resumed = (load_file(f / checkpoint.WEIGHTS_FILE) for f in (finished, tmp_path))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_run_is_not_overwritten(data: Path, finished: Path) -> None:
    before = (finished / checkpoint.WEIGHTS_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run; use --resume or another --out"):
        run(data, finished, config())
    assert (finished / checkpoint.WEIGHTS_FILE).read_bytes() == before


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last.ckpt does not exist: nothing to resume"):
        run(data, tmp_path, config(), resume=True)
    assert not list(tmp_path.iterdir())


def test_without_val_there_is_a_model_but_no_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_shapes(tmp_path / "data", train=2, val=0, size=(48, 64))
    (data / "annotations" / "instances_val.json").unlink()
    with caplog.at_level(logging.WARNING, logger="diffinst"):
        out = run(data, tmp_path / "out", config(iterations=2))
    assert "instances_val.json does not exist: training without evaluation" in caplog.text
    checkpoint.load(out)
    assert sorted(losses(out)) == [0, 1]
    assert not (out / "metrics.json").exists() and not (out / "val_predictions").exists()


def test_interruption_says_how_to_go_on(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Criterion, "forward", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning would leave Ctrl-C ignored
    with caplog.at_level(logging.WARNING, logger="diffinst"), pytest.raises(SystemExit):
        run(data, tmp_path, config())
    assert "interrupted at iteration 0; go on with --resume" in caplog.text


def test_a_log_keeps_its_rows_up_to_where_it_goes_on(tmp_path: Path) -> None:
    first = RunLog(tmp_path)
    for step in range(4):
        first.log_metrics({"loss": step / 3}, step)
    first.save()
    second = RunLog(tmp_path)
    assert len(rows(tmp_path)) == 4  # opening changes nothing
    second.log_metrics({"loss": 20.0, "rate": 0.5}, 2)
    second.log_metrics({"loss": 30.0}, 3)
    second.save()
    assert [(r["step"], r["loss"], r["rate"]) for r in rows(tmp_path)] == [
        ("0", "0.0", ""),
        ("1", str(1 / 3), ""),
        ("2", "20.0", "0.5"),
        ("3", "30.0", ""),
    ]


def test_classes_are_counted_by_picture(data: Path) -> None:
    split = load_split(data, "train")
    counts = class_counts(split)
    assert counts.shape == (3,)
    for label in range(3):
        pictures = [r for r in split.records if any(a.label == label for a in r.annotations)]
        assert counts[label] == len(pictures)


def test_the_end_is_evaluated_whatever_the_interval(finished: Path) -> None:
    # 8 iterations, every 5: evaluated at 5 and, with the weights that are saved, at 8
    sheets = sorted(p.name for p in (finished / "val_predictions").iterdir())
    assert sheets == ["iteration_0000005.png", "iteration_0000008.png"]
    assert "val/mask/AP" in json.loads((finished / "metrics.json").read_text())


def test_frozen_norm_without_pretraining_is_warned_of(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = Config.from_preset("tiny").updated(train={"iterations": 1, "proposals": 4})
    with caplog.at_level(logging.WARNING):
        run(data, tmp_path / "run", chosen)
    assert "--model.backbone.norm train" in caplog.text
