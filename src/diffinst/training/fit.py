"""Training from start to finish: data, trainer, checkpoints, resume, and the final model folder."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytorch_lightning as pl
import torch

from diffinst.config import Config, ConfigError, TrainConfig
from diffinst.datasets.split import class_counts
from diffinst.evaluation.report import finite
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.out_of_memory import explained
from diffinst.training import plan, run_folder
from diffinst.training.advice import advice
from diffinst.training.loader import images_each
from diffinst.training.module import DiffusionInstModule
from diffinst.training.progress import Tell
from diffinst.training.quiet import quiet
from diffinst.training.run_folder import (
    BEST,
    CHECKPOINT,
    METRICS_FILE,
    PLAN_FILE,
    RUN_FILE,
    best_model,
)
from diffinst.training.splits import (
    first_images,
    splits,
    usual_sides,
    with_classes,
    without_augmentation,
)
from diffinst.training.stream import StreamData
from diffinst.training.trainer import check_processes, make_trainer
from diffinst.weights import store
from diffinst.weights.card import Card, scores, write_card
from diffinst.weights.transfer import Origin

logger = logging.getLogger(__name__)
DEV_RUN_IMAGES = 2
DEV_RUN: dict[str, object] = {
    "iterations": 2,
    "scaling": "none",
    "milestones": [],
    "warmup": 0,
    "checkpoint_every": 1,
    "eval_every": 0,
    "log_every": 1,
    "loggers": ["csv"],
}


@dataclass(frozen=True)
class Trained:
    """What a run has come to.

    Attributes:
        model: The best one on val where there is one, else the last.
        metrics: Its scores on val: `mask/AP`, ..., `box/AP`, ...; None where undefined, empty
            without val.
        folder: The run folder; gone after a trial run (`fast_dev_run`).
        best: Folder of the best model, if there is one.
    """

    model: DiffusionInst
    metrics: dict[str, float | None]
    folder: Path
    best: Path | None


def fit(
    data: str | Path,
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    pretrained: bool = True,
    origin: Origin | None = None,
    devices: int = 1,
    nodes: int = 1,
    overfit: int = 0,
    fast_dev_run: bool = False,
    num_classes: int | None = None,
    progress: bool | Tell = True,
    announce: Callable[[Mapping[str, str]], None] | None = None,
) -> Trained:
    """Train with a configuration that is decided; the rest as in `training.train.train`.

    Args:
        data: A folder with a split "train", and "val" if possible.
        config: Everything; the number and names of classes are taken from the data.
        out: Run folder.
        resume: Go on from the last checkpoint in `out`, to the same losses as without a break.
        pretrained: Start the backbone from ImageNet weights.
        origin: Start from these weights instead; `config.model` has their architecture.
        devices: As in `train`, like all that follow.
        nodes: Machines.
        overfit: Number of images.
        fast_dev_run: A trial run.
        num_classes: Refuse data with another number; None: whatever the data have.
        progress: Show a bar; or who is told.
        announce: Gets the plan.

    Raises:
        ConfigError: A resumed run was started with other settings, or the data have another number
            of classes; the others as in `train`.
    """
    check_processes(devices, nodes)
    if overfit < 0:
        raise ValueError(f"--overfit {overfit}: give a number of images, from 1")
    fresh = not resume and origin is None
    place = TemporaryDirectory(prefix="diffinst-dev-run-") if fast_dev_run else nullcontext(out)
    with place as folder, quiet():
        out = Path(folder)
        if fast_dev_run:
            config = config.updated(train=DEV_RUN)
        run_folder.check(out, resume=resume)
        images_each(config.train, devices * nodes)  # refuse before anything is written
        train_split, val_split = splits(data, single_class=config.train.single_class)
        if num_classes not in (None, len(train_split.classes)):
            raise ConfigError(
                f"model.num_classes {num_classes}: {train_split.annotation_file} has "
                f"{len(train_split.classes)} classes; omit the field, it is taken from the data"
            )
        if overfit:
            config = without_augmentation(config)
            train_split = val_split = first_images(train_split, overfit)
        elif fast_dev_run and val_split is not None:
            val_split = first_images(val_split, DEV_RUN_IMAGES)
        given = with_classes(config, train_split)
        if resume:
            run_folder.refuse_changes(Config.from_file(out / RUN_FILE), given, out)
        config = given.updated(
            train=_settled(given.train).model_dump(mode="json"),
            prompts={"sides": given.prompts.sides or usual_sides(train_split, given.preprocess)},
        )
        if fresh and not pretrained and config.model.backbone.norm == "frozen":
            logger.warning(
                "random weights with frozen BatchNorm learn poorly: add --model.backbone.norm train"
            )
        pl.seed_everything(config.train.seed, verbose=False)
        module = DiffusionInstModule(
            config,
            class_counts=torch.from_numpy(class_counts(train_split)),
            pretrained=pretrained and fresh,
            val=val_split,
            out=out,
        )
        if origin is not None and not resume:
            logger.warning("%s", origin.fill(module.network, list(config.model.class_names)))
        trainer = make_trainer(
            config,
            out,
            devices=devices,
            nodes=nodes,
            progress=progress,
            validate=val_split is not None,
        )
        first = trainer.is_global_zero  # of several processes; it alone writes
        alone = run_folder.held(out, resume=resume) if first else nullcontext()
        with explained("training", lambda: advice(config)), run_folder.disk_named(out), alone:
            if first:
                processes = devices * nodes
                cost = None
                if announce is not None:
                    cost = plan.rehearse(module, train_split, config, processes)
                lines = plan.describe(
                    config, train_split, val_split, processes=processes, cost=cost, given=given
                )
                if announce is not None:
                    announce(lines)
                if not resume:
                    write_json(out / RUN_FILE, given.to_dict())
                    write_json(out / PLAN_FILE, lines)
            _train(trainer, module, StreamData(train_split, val_split, config), out, resume)
            if first:
                images = f"{Path(data).resolve().name}, {len(train_split.records)} images"
                _complete_cards(out, images)
            trainer.strategy.barrier()  # the first process has written everything
        if fast_dev_run and first:
            store.load(out)  # the last model, too, has to be whole
        trained = _trained(out, module)
    return Trained(trained.model, trained.metrics, out, None) if fast_dev_run else trained


def _settled(train: TrainConfig) -> TrainConfig:
    """As many iterations as the scaling rule says, with a warm-up that ends within them."""
    scaled = train.scaled()
    warmup = scaled.warmup if scaled.warmup < scaled.iterations else scaled.iterations // 10
    return scaled.model_copy(update={"warmup": warmup})


def _train(
    trainer: pl.Trainer, module: DiffusionInstModule, stream: StreamData, out: Path, resume: bool
) -> None:
    """Train, save the model, evaluate it."""
    last = out / CHECKPOINT
    try:
        trainer.fit(module, datamodule=stream, ckpt_path=str(last) if resume else None)
        if trainer.is_global_zero:
            if module.iteration < module.config.train.iterations:
                logger.warning("stopped at iteration %d: the AP rises no more", module.iteration)
            store.save(module.network, module.config, out)
        if stream.val is not None and module.evaluated_at != module.iteration:
            trainer.validate(module, datamodule=stream, verbose=False)
    except SystemExit as stop:  # Lightning's answer: with code 1 to Ctrl-C, without to SIGTERM
        how = "go on with --resume" if last.is_file() else "there is no checkpoint yet"
        logger.warning("interrupted at iteration %d; %s", module.iteration, how)
        raise SystemExit(128 + (signal.SIGINT if stop.code else signal.SIGTERM)) from stop
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    if metrics and trainer.is_global_zero:
        write_json(out / METRICS_FILE, finite(metrics))


def _complete_cards(out: Path, data: str) -> None:
    """Say on the cards of the last and the best model what they were trained on, and how good."""
    for folder in (out, out / BEST):
        if (folder / store.CONFIG_FILE).is_file():
            config = Config.from_file(folder / store.CONFIG_FILE)
            write_card(folder, config, Card(data=data, metrics=scores(folder / METRICS_FILE)))


def _trained(out: Path, module: DiffusionInstModule) -> Trained:
    """The result as it lies in the run folder."""
    best = best_model(out)
    folder = best or out
    if not (folder / store.WEIGHTS_FILE).is_file():  # another machine has it on a disk of its own
        return Trained(DiffusionInst(module.network.eval(), module.config), {}, out, None)
    metrics: dict[str, float | None] = {}
    if (folder / METRICS_FILE).is_file():
        metrics = json.loads((folder / METRICS_FILE).read_text("utf-8"))
    scores = {k.removeprefix("val/"): v for k, v in metrics.items() if k != "iteration"}
    return Trained(DiffusionInst.from_pretrained(folder), scores, out, best)
