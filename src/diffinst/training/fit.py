"""Training from start to finish: data, trainer, checkpoints, resume, and the final model folder."""

from __future__ import annotations

import errno
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from diffinst.config import Config, ConfigError
from diffinst.datasets.layouts import find_splits
from diffinst.datasets.load import check_trainable, load_split
from diffinst.datasets.segmentation import DatasetError
from diffinst.datasets.split import Split, class_counts
from diffinst.evaluation.report import finite
from diffinst.io.atomic import write_json
from diffinst.io.out_of_memory import explained
from diffinst.training import plan
from diffinst.training.advice import advice
from diffinst.training.loader import images_each
from diffinst.training.module import BEST, DiffusionInstModule
from diffinst.training.stream import StreamData
from diffinst.training.trainer import CHECKPOINTS, LAST, make_trainer
from diffinst.weights import store
from diffinst.weights.transfer import Origin

logger = logging.getLogger(__name__)
RUN_FILE = "run.json"
PLAN_FILE = "plan.json"
DEV_RUN_IMAGES = 2
NOT_SO = (  # what Lightning says and our stream makes untrue, or what is meant
    "You're resuming from a checkpoint that ended before the epoch ended",
    "Checkpoint directory .* exists and is not empty",
    "You have overridden `transfer_batch_to_device`",
    "The '.*_dataloader' does not have many workers",
    "Using ModelCheckpoint with manual optimization",
    "The number of training batches .* is smaller than the logging interval",
    "Found .* in eval mode at the start of training",  # train.freeze
    "It is recommended to use .* when logging on epoch level",  # all processes score all images
    "Detected call of `lr_scheduler.step",  # the first step was skipped
)


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
    progress: bool = True,
    announce: Callable[[Mapping[str, str]], None] | None = None,
) -> Path:
    """Train on an annotated folder and write a model folder.

    Args:
        data: A folder with a split "train", and "val" if possible; see `data.layouts.find_splits`.
        config: Everything; the number and names of classes are taken from the data.
        out: Run folder: config.json and model.safetensors (loadable by name), best/ (the model with
            the best mask AP on val), checkpoints/, logs/, val_predictions/, metrics.json, run.json
            (the configuration), plan.json.
        resume: Go on from the last checkpoint in `out`, to the same losses as without a break.
        pretrained: Start the backbone from ImageNet weights (`weights_file`, or the hub).
        origin: Start from these weights instead; `config.model` has their architecture.
        devices: GPUs a machine, or processes where there is no GPU.
        nodes: Machines; each runs the same command (torchrun, SLURM, or MASTER_ADDR and NODE_RANK).
        overfit: Train and evaluate on the first so many images, without augmentation: a working
            set-up reaches a high AP soon.
        fast_dev_run: Two iterations, two images evaluated, nothing kept: does everything run?
        progress: Show a bar with losses and remaining time.
        announce: Gets the plan before training starts; the plan tries one pass to tell the cost.

    Returns:
        The run folder.

    Raises:
        DatasetError: The data cannot be used.
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: Nothing to resume.
        FloatingPointError: The loss stayed without a finite value.
        MemoryError: Says which field to lower.
    """
    if overfit < 0:
        raise ValueError(f"--overfit {overfit}: give a number of images, from 1")
    with _folder(out, fast_dev_run) as out:
        if fast_dev_run:
            config = config.updated(train=_DEV_RUN)
        last = out / CHECKPOINTS / f"{LAST}.ckpt"
        if resume and not last.is_file():
            raise FileNotFoundError(
                f"{last} does not exist: nothing to resume; leave --resume away"
            )
        if not resume and (last.is_file() or (out / store.WEIGHTS_FILE).is_file()):
            raise FileExistsError(f"{out} already holds a run; use --resume or another --out")
        images_each(config.train, devices * nodes)  # refuse before anything is written
        train_split, val_split = splits(data, config)
        if overfit:
            config = without_augmentation(config)
            train_split = val_split = _first(train_split, overfit)
        elif fast_dev_run and val_split is not None:
            val_split = _first(val_split, DEV_RUN_IMAGES)
        given = with_classes(config, train_split)
        if resume:
            refuse_changes(Config.from_file(out / RUN_FILE), given, out)
        config = given.updated(train=given.train.scaled().model_dump(mode="json"))
        if (
            not pretrained
            and not resume
            and origin is None
            and config.model.backbone.norm == "frozen"
        ):
            logger.warning(
                "random weights with frozen BatchNorm learn poorly: add --model.backbone.norm train"
            )
        pl.seed_everything(config.train.seed, verbose=False)
        module = DiffusionInstModule(
            config,
            class_counts=torch.from_numpy(class_counts(train_split)),
            pretrained=pretrained and not resume and origin is None,
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
        with explained("training", lambda: advice(config)), _disk_named(out, last):
            if trainer.is_global_zero:
                cost = None
                if announce is not None:
                    cost = plan.rehearse(module, train_split, config, devices * nodes)
                lines = plan.describe(
                    config,
                    train_split,
                    val_split,
                    devices=devices,
                    nodes=nodes,
                    cost=cost,
                    given=given,
                )
                if announce is not None:
                    announce(lines)
                if not resume:
                    write_json(out / RUN_FILE, given.to_dict())
                    write_json(out / PLAN_FILE, lines)
            _train(trainer, module, StreamData(train_split, val_split, config), out, last, resume)
        if fast_dev_run and trainer.is_global_zero:
            store.load(out)
        return out


_DEV_RUN: dict[str, object] = {
    "iterations": 2,
    "scaling": "none",
    "milestones": [],
    "warmup": 0,
    "checkpoint_every": 1,
    "eval_every": 0,
    "log_every": 1,
    "loggers": ["csv"],
}


FREE_ON_RESUME = {  # what may change without another course of training
    "model.backbone.weights_file",
    "criterion.mask_chunk",
    "train.accumulate",
    "train.activation_checkpointing",
    "train.bad_steps",
    "train.checkpoint_every",
    "train.log_every",
    "train.loggers",
    "train.workers",
}


def refuse_changes(before: Config, now: Config, out: Path) -> None:
    """A resumed run keeps its settings, so that it ends as it would have without the break.

    Raises:
        ConfigError: Names the fields that changed, with both values.
    """
    old, new = _flat(before.to_dict()), _flat(now.to_dict())
    changed = [k for k in old if old[k] != new.get(k) and k not in FREE_ON_RESUME]
    if changed:
        listed = "; ".join(f"{k} was {old[k]}, now {new.get(k)}" for k in changed[:5])
        raise ConfigError(
            f"{out} was started with other settings or other classes: {listed}. Resume with the "
            f"same ones, or start another run from its weights: --from {out / BEST} --out ANOTHER"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        name = prefix + key
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


@contextmanager
def _folder(out: str | Path, fast_dev_run: bool) -> Iterator[Path]:
    """The run folder; one that goes away, however the run ends, where nothing is to be kept."""
    if not fast_dev_run:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="diffinst-dev-run-") as folder:
        yield Path(folder)


def _train(
    trainer: pl.Trainer,
    module: DiffusionInstModule,
    stream: StreamData,
    out: Path,
    last: Path,
    resume: bool,
) -> None:
    """Train, save the model, evaluate it."""
    try:
        with warnings.catch_warnings():
            for message in NOT_SO:
                warnings.filterwarnings("ignore", message=message)
            trainer.fit(module, datamodule=stream, ckpt_path=str(last) if resume else None)
    except SystemExit:  # Lightning's answer to Ctrl-C
        how = "go on with --resume" if last.is_file() else "there is no checkpoint yet"
        logger.warning("interrupted at iteration %d; %s", module.iteration, how)
        raise
    if trainer.is_global_zero:
        store.save(module.network, module.config, out)
    if stream.val is not None and module.evaluated_at != module.iteration:
        trainer.validate(module, datamodule=stream, verbose=False)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    if metrics and trainer.is_global_zero:
        write_json(out / "metrics.json", finite(metrics))


def splits(data: str | Path, config: Config) -> tuple[Split, Split | None]:
    """The training and the evaluation split of a folder.

    Raises:
        DatasetError: No training data, nothing annotated, or val has classes that train lacks.
    """
    single = config.train.single_class
    train = load_split(data, "train", single_class=single)
    check_trainable(train)
    if "val" not in find_splits(data):
        logger.warning("%s has no split 'val': training without evaluation", data)
        return train, None
    val = load_split(data, "val", single_class=single)
    unknown = [name for name in val.classes if name not in train.classes]
    if unknown:
        raise DatasetError(
            f"{val.annotation_file} has classes that {train.annotation_file} lacks: "
            f"{', '.join(unknown[:5])}; rename or remove them, or add them to both files"
        )
    missing = [name for name in train.classes if name not in val.classes]
    if missing:
        raise DatasetError(
            f"{val.annotation_file} does not list the classes {', '.join(missing[:5])} of "
            f"{train.annotation_file}; both have to list all classes, objects of each or not: add "
            "them to its 'categories'"
        )
    return train, val


def with_classes(config: Config, split: Split) -> Config:
    """The config with the data's classes."""
    return config.updated(
        model={"num_classes": len(split.classes), "class_names": list(split.classes)}
    )


def without_augmentation(config: Config) -> Config:
    """Training images exactly as they are at test time."""
    preprocess = config.preprocess
    return config.updated(
        augment={
            "flip": 0.0,
            "vertical_flip": 0.0,
            "transpose": 0.0,
            "colour": 0.0,
            "crop_probability": 0.0,
            "zoom": [1.0, 1.0] if preprocess.short_side else [preprocess.zoom] * 2,
            "short_sides": [preprocess.short_side] if preprocess.short_side else [],
            "long_side": preprocess.long_side,
        }
    )


def _first(split: Split, count: int) -> Split:
    """The first images that have objects."""
    records = []
    for record in split.records:
        if any(not a.crowd for a in record.annotations):
            records.append(record)
        if len(records) == count:
            break
    return replace(split, records=tuple(records))


@contextmanager
def _disk_named(out: Path, last: Path) -> Iterator[None]:
    """A full disk is answered by which disk, and by what is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = f"the last checkpoint, {last}, is intact: " if last.is_file() else ""
        raise OSError(
            error.errno,
            f"the disk of {out.resolve()} is full ({error}); {left}free some space there and go on "
            "with --resume",
        ) from error


def best_model(out: Path) -> Path | None:
    """Folder of the model with the best AP on val, if the run evaluated one."""
    folder = out / BEST
    return folder if (folder / store.WEIGHTS_FILE).is_file() else None
