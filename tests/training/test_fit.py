"""Does a run leave a model behind, and does one that was cut off go on as if nothing had been?"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from diffinst.config import Config, ConfigError
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError
from diffinst.datasets.split import class_counts
from diffinst.datasets.synthetic import make_shapes
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.fit import fit
from diffinst.training.module import DiffusionInstModule
from diffinst.training.run_folder import CHECKPOINT, best_model
from diffinst.training.step import TrainingStep
from diffinst.training.stream import StreamData
from diffinst.weights import store

ITERATIONS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, so that a batch of two straddles epochs."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=3, val=2, size=(48, 64), objects=(1, 3))


def config(**train: object) -> Config:
    """Small images; federated classes, stochastic depth, starts: draws that a resume repeats."""
    small = {
        "starts": {"prior": 0.2, "own": 0.3, "near": 0.3, "own_scores": [0.0, 0.01]},
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


def run(data: Path, out: Path, chosen: Config, **more: object) -> Path:
    return fit(data, chosen, out, pretrained=False, progress=False, **more).folder  # type: ignore[arg-type]


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
    data: Path,
    out: Path,
    chosen: Config,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
    **more: object,
) -> None:
    """A run that dies in step `steps` + 1."""
    predict, count = TrainingStep.predict, 0

    def dying(self: TrainingStep, *arguments: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count > steps:
            raise Cut
        return predict(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "predict", dying)
        with pytest.raises(Cut):
            run(data, out, chosen, **more)


def test_a_run_leaves_a_model_and_its_records(data: Path, finished: Path) -> None:
    network, saved = store.load(finished)
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
    assert not (tmp_path / store.WEIGHTS_FILE).exists()
    run(data, tmp_path, chosen, resume=True)
    assert losses(tmp_path) == losses(finished)  # rows from before the cut are there, too
    whole, resumed = (load_file(f / store.WEIGHTS_FILE) for f in (finished, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_the_average_is_saved_also_by_a_run_resumed_at_its_end(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(ema=0.9, eval_every=5)
    with monkeypatch.context() as patch:  # dies between the last checkpoint and the model folder

        def die(*_: object) -> None:
            raise Cut

        patch.setattr(store, "save", die)
        with pytest.raises(Cut):
            run(data, tmp_path, chosen)
    run(data, tmp_path, chosen, resume=True)
    whole, resumed = (load_file(f / store.WEIGHTS_FILE) for f in (finished, tmp_path))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_run_is_not_overwritten(data: Path, finished: Path) -> None:
    before = (finished / store.WEIGHTS_FILE).read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run; use --resume or another --out"):
        run(data, finished, config())
    assert (finished / store.WEIGHTS_FILE).read_bytes() == before


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last.ckpt does not exist: nothing to resume"):
        run(data, tmp_path, config(), resume=True)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_of_another_model_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(data, tmp_path / "a", config(), 3, monkeypatch)
    other = config().updated(model={"decoder": {"width": 16}})
    cut_off(data, tmp_path / "b", other, 3, monkeypatch)
    shutil.copy(tmp_path / "a" / CHECKPOINT, tmp_path / "b" / CHECKPOINT)
    wrong = (
        r"the checkpoint in .*b is of another model \(\d+ tensors wrong shape: .*put the run's own"
    )
    with pytest.raises(store.CheckpointError, match=wrong):
        run(data, tmp_path / "b", other, resume=True)


def test_a_warm_up_ends_within_the_run(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path, config(iterations=2, warmup=200, loggers=["csv"]))
    assert store.load(out)[1].train.warmup == 0
    assert "train.warmup 200 would not end" in json.loads((out / "plan.json").read_text())["steps"]
    assert Config.from_file(out / "run.json").train.warmup == 200  # what was asked, for --resume


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"nodes": 0}, {"devices": -1}, {"nodes": 10**9}])
def test_numbers_of_processes_that_are_none(
    data: Path, tmp_path: Path, wrong: dict[str, int]
) -> None:
    with pytest.raises(
        ValueError, match=r"^--devices .* --nodes .*: allowed are numbers from 1 to"
    ):
        run(data, tmp_path / "out", config(), **wrong)
    assert not (tmp_path / "out").exists()


def test_without_val_there_is_a_model_but_no_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_shapes(tmp_path / "data", train=2, val=0, size=(48, 64))
    (data / "annotations" / "instances_val.json").unlink()
    with caplog.at_level(logging.WARNING, logger="diffinst"):
        out = run(data, tmp_path / "out", config(iterations=2))
    assert "has no split 'val': training without evaluation" in caplog.text
    store.load(out)
    assert sorted(losses(out)) == [0, 1]
    assert not (out / "metrics.json").exists() and not (out / "val_predictions").exists()


def test_interruption_says_what_is_left(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Criterion, "forward", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning would leave Ctrl-C ignored
    with (
        caplog.at_level(logging.WARNING, logger="diffinst"),
        pytest.raises(SystemExit) as end,
    ):
        run(data, tmp_path, config())
    assert end.value.code == 130
    assert "interrupted at iteration 0; there is no checkpoint yet" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows kills outright")
def test_sigterm_is_no_success(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = 0
    forward = Criterion.forward

    def terminated(*arguments: object, **named: object) -> object:
        nonlocal done
        done += 1
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Criterion, "forward", terminated)
    with (
        caplog.at_level(logging.WARNING, logger="diffinst"),
        pytest.raises(SystemExit) as end,
    ):
        run(data, tmp_path, config(checkpoint_every=1))
    assert end.value.code == 143 and not (tmp_path / store.WEIGHTS_FILE).exists()
    assert "interrupted at iteration 3; go on with --resume" in caplog.text


def test_classes_are_counted_by_image(data: Path) -> None:
    split = load_split(data, "train")
    counts = class_counts(split)
    assert counts.shape == (3,)
    for label in range(3):
        images = [r for r in split.records if any(a.label == label for a in r.annotations)]
        assert counts[label] == len(images)


def test_the_end_is_evaluated_whatever_the_interval(finished: Path) -> None:
    # 8 iterations, every 5: evaluated at 5 and, with the weights that are saved, at 8
    sheets = sorted(p.name for p in (finished / "val_predictions").iterdir())
    assert sheets == ["iteration_0000005.png", "iteration_0000008.png"]
    assert "val/mask/AP" in json.loads((finished / "metrics.json").read_text())


def test_frozen_norm_without_pretraining_is_warned_of(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = Config.from_preset("tiny").updated(train={"iterations": 1, "proposals": 5})
    with caplog.at_level(logging.WARNING):
        run(data, tmp_path / "run", chosen)
    assert "--model.backbone.norm train" in caplog.text


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ImageBatch, list[Targets]]]:
    """Gets the images and objects of each training step."""
    seen: list[tuple[ImageBatch, list[Targets]]] = []
    predict = TrainingStep.predict

    def watched(
        self: TrainingStep,
        images: ImageBatch,
        targets: list[Targets],
        *rest: object,
        **named: object,
    ) -> object:
        seen.append((images, targets))
        return predict(self, images, targets, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "predict", watched)
    return seen


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_trial_run_tries_everything_and_leaves_nothing(
    data: Path,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files: list[Path] = []
    replace = os.replace

    def noted(source: Path, target: Path) -> None:
        replace(source, target)
        files.append(Path(target))

    monkeypatch.setattr(os, "replace", noted)
    plans: list[Mapping[str, str]] = []
    chosen = config(loggers=["csv", "wandb"], ema=0.9, patience=3, scaling="linear")
    run(data, tmp_path / "out", chosen, fast_dev_run=True, announce=plans.append)
    assert plans[0]["steps"].startswith("2 iterations") and "time" in plans[0]
    roots = {path.relative_to(temporary).parts[0] for path in files}
    assert len(roots) == 1
    written = [str(path.relative_to(temporary / next(iter(roots)))) for path in files]
    assert written.count("checkpoints/last.ckpt") == 2
    for name in ("model.safetensors", "best/model.safetensors", "metrics.json", "run.json"):
        assert name in written
    assert "val_predictions/iteration_0000002.png" in written
    assert not list(temporary.iterdir()) and not (tmp_path / "out").exists()


def test_a_trial_run_that_fails_leaves_nothing_either(
    data: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(data, tmp_path / "out", config(), 1, monkeypatch, fast_dev_run=True)
    with pytest.raises(DatasetError):
        run(tmp_path / "gone", tmp_path / "out", config(), fast_dev_run=True)
    assert not list(temporary.iterdir()) and not (tmp_path / "out").exists()


def test_overfitting_sees_the_same_images_as_they_are(
    data: Path, tmp_path: Path, batches: list[tuple[ImageBatch, list[Targets]]]
) -> None:
    chosen = config(iterations=2, loggers=["csv"]).updated(
        augment={"flip": 1.0, "colour": 0.5, "crop_probability": 1.0, "transpose": 1.0}
    )
    run(data, tmp_path, chosen, overfit=1)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["train"].startswith("1 images") and plan["val"].startswith("1 images")
    assert plan["train"] == plan["val"]
    assert len(list((tmp_path / "val_predictions").iterdir())) == 1
    first = load_split(data, "train").records[0]
    assert {t.image_id for _, targets in batches for t in targets} == {first.id}
    seen = [pixels for images, _ in batches for pixels in images.pixels]
    assert len(seen) == 4 and all(torch.equal(seen[0], p) for p in seen)
    assert batches[0][0].sizes == ((48, 64),) * 2  # as at test time
    expected = torch.tensor([a.box for a in first.annotations])
    torch.testing.assert_close(batches[0][1][0].boxes, expected)


def test_overfitting_skips_images_without_objects(
    tmp_path: Path, batches: list[tuple[ImageBatch, list[Targets]]]
) -> None:
    size = (48, 64)
    data = make_shapes(tmp_path / "data", train=4, val=0, size=size, objects=(0, 1), seed=5)
    records = load_split(data, "train").records
    assert [len(r.annotations) for r in records] == [0, 1, 1, 0]
    run(data, tmp_path / "out", config(iterations=2, loggers=["csv"]), overfit=2)
    assert {t.image_id for _, targets in batches for t in targets} == {r.id for r in records[1:3]}


def test_a_run_that_gets_no_better_stops(
    data: Path, tmp_path: Path, batches: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    still = config(lr=1e-12, eval_every=1, patience=2, loggers=["csv"]).updated(
        model={"backbone": {"norm": "frozen"}, "mask_branch": {"norm": "group"}}
    )
    run(data, tmp_path, still)
    # the first evaluation is the best, two more are not better
    scores = [r["val/mask/AP"] for r in rows(tmp_path) if r.get("val/mask/AP")]
    assert len(batches) == 3 and len(scores) == 3 and len(set(scores)) == 1
    assert "stopped at iteration 3: the AP rises no more" in caplog.text
    store.load(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["val/mask/AP"] == float(scores[0])
    best = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert best["iteration"] == 1 and best["mask/AP"] == float(scores[0])


def test_the_best_score_outlives_a_break(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(iterations=4, eval_every=1, checkpoint_every=2, loggers=["csv"])
    cut_off(data, tmp_path, chosen, 3, monkeypatch)
    best = best_model(tmp_path)
    assert best == tmp_path / "best"
    scores = json.loads((best / "metrics.json").read_text())
    last = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    assert state["diffinst"]["iteration"] == 3  # an evaluation leaves a checkpoint, due or not
    assert state["diffinst"]["best"] == scores["mask/AP"]
    state["diffinst"]["best"] = 2.0  # nothing that comes is better
    torch.save(state, last)
    before = {path: path.read_bytes() for path in best.iterdir() if path.name != "README.md"}
    run(data, tmp_path, chosen, resume=True)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in best.iterdir()} == {p.name for p in before} | {"README.md"}
    assert "Not measured" not in (best / "README.md").read_text()  # a run's end completes it
    assert len(list((tmp_path / "val_predictions").iterdir())) == 4


def test_no_evaluation_no_best(tmp_path: Path) -> None:
    assert best_model(tmp_path) is None


def edited(data: Path, folder: Path, split: str, change: dict[str, str] | None) -> Path:
    """A copy of the annotations with classes renamed, or without objects."""
    folder.mkdir()
    for part in ("train", "val"):
        (folder / part).symlink_to(data / part)
    (folder / "annotations").mkdir()
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        if split in file.name:
            if change is None:
                content["annotations"] = []
            else:
                for category in content["categories"]:
                    category["name"] = change.get(category["name"], category["name"])
        (folder / "annotations" / file.name).write_text(json.dumps(content))
    return folder


def test_val_with_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    other = edited(data, tmp_path / "data", "val", {"box": "star"})
    wrong = r"instances_val\.json has classes that .*instances_train\.json lacks: star; rename"
    with pytest.raises(DatasetError, match=wrong):
        run(other, tmp_path / "out", config())
    assert not (tmp_path / "out").exists()


def test_nothing_annotated_to_train_on(data: Path, tmp_path: Path) -> None:
    bare = edited(data, tmp_path / "data", "train", None)
    with pytest.raises(DatasetError, match="none of its 3 images has an annotated object"):
        run(bare, tmp_path / "out", config())
    assert not (tmp_path / "out").exists()


def test_nothing_annotated_to_evaluate_on(data: Path, tmp_path: Path) -> None:
    bare = edited(data, tmp_path / "data", "val", None)
    run(bare, tmp_path / "out", config(iterations=2, eval_every=1, loggers=["csv"]))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["val/mask/AP"] is None
    assert best_model(tmp_path / "out") is None
    store.load(tmp_path / "out")


def test_all_classes_as_one(
    data: Path, tmp_path: Path, batches: list[tuple[ImageBatch, list[Targets]]]
) -> None:
    run(data, tmp_path, config(iterations=1, single_class=True, loggers=["csv"]))
    _, saved = store.load(tmp_path)
    assert saved.model.class_names == ("object",) and saved.model.num_classes == 1
    labels = torch.cat([t.labels for _, targets in batches for t in targets])
    assert len(labels) > 1 and not labels.any()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.get("val/mask/AP") is not None


def test_a_batch_that_processes_cannot_share(data: Path, tmp_path: Path) -> None:
    wrong = r"train\.batch_size 4 cannot be split evenly over 3 processes x 2 micro-batches; use a"
    with pytest.raises(ValueError, match=wrong):
        run(data, tmp_path / "out", config(batch_size=4, accumulate=2), devices=3)
    assert not (tmp_path / "out").exists()


def test_a_process_without_a_val_image_still_scores(data: Path) -> None:
    val = load_split(data, "val")
    module = DiffusionInstModule(config(), class_counts=torch.ones(3), pretrained=False)

    class Trainer:
        def __init__(self, rank: int) -> None:
            self.global_rank, self.world_size, self.lightning_module = rank, 3, module

    seen = []
    for rank in range(3):
        stream = StreamData(val, val, config())
        stream.trainer = Trainer(rank)  # type: ignore[assignment]
        batches = stream.val_dataloader()
        assert isinstance(batches, DataLoader)
        seen.append([[r.id for r in batch] for batch in batches])
    assert seen == [[[val.records[0].id]], [[val.records[1].id]], [[]]]


def test_a_full_disk_is_named_and_the_run_goes_on(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(ema=0.9, eval_every=5)
    save, written = torch.save, 0

    def full(content: object, path: Path) -> None:
        nonlocal written
        written += 1
        if written > 1:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        wrong = (
            rf"in {tmp_path}.*: the disk .* is full; .*, and go on with .*last\.ckpt, is intact$"
        )
        with pytest.raises(OSError, match=wrong) as caught:
            run(data, tmp_path, chosen)
    assert caught.value.errno == errno.ENOSPC and "--resume" in str(caught.value)
    run(data, tmp_path, chosen, resume=True)
    assert losses(tmp_path) == losses(finished)


def test_a_disk_that_was_full_from_the_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="is full") as caught:
        run(data, tmp_path, config(checkpoint_every=1, loggers=["csv"]))
    said = str(caught.value).replace("previous file is intact", "")
    assert "intact" not in said and "--resume" not in said and said.endswith("and start again")


def test_the_scaling_rule_is_applied_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(
        iterations=1,
        scaling="linear",
        reference_batch_size=4,
        batch_size=2,
        lr=4e-4,
        checkpoint_every=1,
        loggers=["csv"],
    )
    cut_off(data, tmp_path, chosen, 1, monkeypatch)
    given = Config.from_file(tmp_path / "run.json")
    assert given.train == chosen.train and given.train.scaling == "linear"
    run(data, tmp_path, given, resume=True)
    assert Config.from_file(tmp_path / "run.json").train == chosen.train
    _, saved = store.load(tmp_path)
    assert (saved.train.scaling, saved.train.lr, saved.train.iterations) == ("none", 2e-4, 2)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["lr"] == (
        "0.0002 (linear scaling: 0.0004 is for 4 images, 1 iterations; here 2 images)"
    )
    assert plan["steps"].startswith("2 iterations of 2 images")
    assert sorted(losses(tmp_path)) == [0, 1]


def scores(out: Path) -> list[tuple[str, str]]:
    """Step and mask AP of each evaluation."""
    return [(r["step"], r["val/mask/AP"]) for r in rows(out) if r.get("val/mask/AP")]


@pytest.mark.parametrize("during", ["the evaluation", "the step after it"])
def test_an_evaluation_counts_once_wherever_the_run_was_cut(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    # evaluations at 2, 4, 6, 8, each at the place of a checkpoint; cut in or just behind that at 4
    chosen = config(eval_every=2, checkpoint_every=2)
    whole = run(data, tmp_path / "whole", chosen)
    out = tmp_path / "cut"
    if during == "the evaluation":
        with monkeypatch.context() as patch:
            evaluate = DiffusionInstModule.on_validation_epoch_end

            def dying(self: DiffusionInstModule) -> None:
                if self.iteration == 4:
                    raise Cut
                evaluate(self)

            patch.setattr(DiffusionInstModule, "on_validation_epoch_end", dying)
            with pytest.raises(Cut):
                run(data, out, chosen)
    else:
        cut_off(data, out, chosen, 4, monkeypatch)
    resumed = run(data, out, chosen, resume=True)
    assert scores(resumed)[-3:] == scores(whole)[-3:]
    assert losses(resumed) == losses(whole)
    best, again = (json.loads((f / "best" / "metrics.json").read_text()) for f in (whole, resumed))
    assert best == again


def test_a_run_that_stopped_early_stays_stopped(data: Path, tmp_path: Path) -> None:
    chosen = config(eval_every=1, patience=2, lr=1e-12)  # no better AP than the first
    run(data, tmp_path, chosen)
    assert max(losses(tmp_path)) == 2  # evaluated after steps 0, 1 and 2
    weights = load_file(tmp_path / store.WEIGHTS_FILE)
    run(data, tmp_path, chosen, resume=True)
    assert max(losses(tmp_path)) <= 2
    again = load_file(tmp_path / store.WEIGHTS_FILE)
    assert all(torch.equal(weights[k], again[k]) for k in weights)


def test_settings_that_change_the_course_are_refused_on_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(data, tmp_path, config(), 3, monkeypatch)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.lr was 0\.0003, now 0\.001"):
        run(data, tmp_path, config(lr=1e-3), resume=True)
    assert (tmp_path / "run.json").read_bytes() == before
    run(data, tmp_path, config(log_every=2, checkpoint_every=3), resume=True)
