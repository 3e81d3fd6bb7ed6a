"""Training from start to finish: data, trainer, checkpoints, resume, and the final model folder."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from torch import Tensor
from torch.utils.data import DataLoader

from diffinst import checkpoint
from diffinst.config import Config
from diffinst.data.load import load_split
from diffinst.data.loader import TrainBatch, train_loader
from diffinst.data.split import ImageRecord, Split
from diffinst.evaluation.evaluator import category_ids, finite
from diffinst.io.atomic import write_json
from diffinst.training.module import DiffusionInstModule

logger = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
NOT_SO = (  # what Lightning says and our stream makes untrue, or what is meant
    "You're resuming from a checkpoint that ended before the epoch ended",
    "Checkpoint directory .* exists and is not empty",
    "You have overridden `transfer_batch_to_device`",
    "The '.*_dataloader' does not have many workers",
)


def fit(
    data: str | Path,
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    pretrained: bool = True,
    progress: bool = True,
) -> Path:
    """Train on a COCO-format folder and write a model folder.

    Args:
        data: ROOT with {train,val}/ and annotations/instances_{train,val}.json; val may be missing.
        config: Everything; the number and names of classes are taken from the data.
        out: Run folder: config.json and model.safetensors (loadable by name), checkpoints/, logs/,
            val_predictions/, metrics.json.
        resume: Go on from the last checkpoint in `out`, to the same losses as without a break.
        pretrained: Start the backbone from ImageNet weights (`weights_file`, or the hub).
        progress: Show a bar with losses and remaining time.

    Returns:
        The run folder.

    Raises:
        DatasetError: The data cannot be used.
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: Nothing to resume.
    """
    out = Path(out)
    last = out / CHECKPOINTS / "last.ckpt"
    if resume and not last.is_file():
        raise FileNotFoundError(f"{last} does not exist: nothing to resume; leave --resume away")
    if not resume and (last.is_file() or (out / checkpoint.WEIGHTS_FILE).is_file()):
        raise FileExistsError(f"{out} already holds a run; use --resume or another --out")
    train_split, val_split = load_split(data, "train"), _val_split(data)
    config = with_classes(config, train_split)
    if val_split is not None:
        category_ids(config.model.class_names, val_split)  # refuse other classes before training
    if not pretrained and not resume and config.model.backbone.norm == "frozen":
        logger.warning(
            "random weights with frozen BatchNorm learn poorly: add --model.backbone.norm train"
        )
    pl.seed_everything(config.train.seed, verbose=False)
    module = DiffusionInstModule(
        config,
        class_counts=class_counts(train_split),
        pretrained=pretrained and not resume,
        val=val_split,
        out=out,
    )
    write_json(out / RUN_FILE, config.to_dict())
    trainer = make_trainer(config, out, progress=progress, validate=val_split is not None)
    stream = StreamData(train_split, val_split, config)
    try:
        with warnings.catch_warnings():
            for message in NOT_SO:
                warnings.filterwarnings("ignore", message=message)
            trainer.fit(module, datamodule=stream, ckpt_path=str(last) if resume else None)
    except SystemExit:  # Lightning's answer to Ctrl-C
        logger.warning("interrupted at iteration %d; go on with --resume", trainer.global_step)
        raise
    checkpoint.save(module.network, config, out)
    if val_split is not None and module.evaluated_at != trainer.global_step:
        trainer.validate(module, datamodule=stream, verbose=False)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    if metrics:
        write_json(out / "metrics.json", finite(metrics))
    return out


class StreamData(pl.LightningDataModule):
    """The training stream from where the trainer stands, and the val pictures one by one."""

    def __init__(self, train: Split, val: Split | None, config: Config) -> None:
        super().__init__()
        self.train, self.val, self.config = train, val, config

    def train_dataloader(self) -> DataLoader[TrainBatch]:
        """Starts behind the last finished iteration: exact resume."""
        assert self.trainer is not None
        seen = self.trainer.global_step * self.config.train.batch_size
        return train_loader(self.train, self.config, start=seen)

    def val_dataloader(self) -> DataLoader[list[ImageRecord]] | list[object]:
        """One picture at a time."""
        if self.val is None:
            return []
        records: DataLoader[list[ImageRecord]] = DataLoader(
            list(self.val.records),  # type: ignore[arg-type]
            batch_size=1,
            collate_fn=list,
        )
        return records


def make_trainer(config: Config, out: Path, *, progress: bool, validate: bool) -> pl.Trainer:
    """The trainer of a run; everything it writes lies below `out`."""
    train = config.train
    every = train.eval_every or train.iterations
    saver = ModelCheckpoint(
        dirpath=out / CHECKPOINTS,
        filename="iteration_{step}",
        every_n_train_steps=min(train.checkpoint_every, train.iterations),
        save_last=True,
        save_top_k=1,
        monitor=None,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    callbacks: list[Callback] = [saver, LearningRateMonitor("step")]
    if train.ema:
        callbacks.append(WarmAverage(train.ema))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=1))
    return pl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        max_steps=train.iterations,
        max_epochs=-1,
        precision="bf16-mixed" if train.precision == "bf16" else "32-true",
        gradient_clip_val=train.clip_norm,
        log_every_n_steps=train.log_every,
        val_check_interval=every if validate else None,
        check_val_every_n_epoch=None if validate else 1,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=[TensorBoardLogger(str(out), name="logs", version=""), RunLog(out)],
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(out),
    )


class WarmAverage(WeightAveraging):
    """Exponential moving average of the weights; decay (1 + i) / (10 + i), at most `decay`."""

    def __init__(self, decay: float) -> None:
        def average(means: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
            if not means[0].is_floating_point():  # counters
                torch._foreach_copy_(list(means), list(new))
                return
            i = float(count)
            share = min(decay, (1 + i) / (10 + i))
            torch._foreach_lerp_(list(means), list(new), 1 - share)

        super().__init__(multi_avg_fn=average)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run resumed behind its last iteration ends with the average, too."""
        self.on_train_end(trainer, pl_module)


class RunLog(CSVLogger):
    """Scalars in metrics.csv; a resumed run goes on in the same file."""

    def __init__(self, out: Path) -> None:
        super().__init__(str(out), name="", version="")
        self._experiment = _KeptRows(self.log_dir)


class _KeptRows(ExperimentWriter):
    """Keeps the rows of an earlier start up to the first step that is logged anew."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._file = Path(self.metrics_file_path)
        self._old: list[dict[str, float]] = []
        if self._file.is_file():
            with self._file.open(newline="") as rows:
                for row in csv.DictReader(rows):
                    values = {k: float(v) for k, v in row.items() if v}
                    self._old.append({**values, "step": int(row["step"])})

    def _check_log_dir_exists(self) -> None:
        """Lightning would delete the file here."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Add a row; the first one replaces old rows from its step on."""
        if self._old and step is not None:
            self.metrics = [row for row in self._old if row["step"] < step]
            self._old = []
            self._file.unlink(missing_ok=True)
            self.save()
        super().log_metrics(metrics_dict, step)


def class_counts(split: Split) -> Tensor:
    """(K,) number of pictures that contain each class."""
    counts = torch.zeros(len(split.classes), dtype=torch.int64)
    for record in split.records:
        for label in {a.label for a in record.annotations}:
            counts[label] += 1
    return counts


def with_classes(config: Config, split: Split) -> Config:
    """The config with the data's classes."""
    return config.updated(
        model={"num_classes": len(split.classes), "class_names": list(split.classes)}
    )


def _val_split(data: str | Path) -> Split | None:
    annotations = Path(data) / "annotations" / "instances_val.json"
    if not annotations.is_file():
        logger.warning("%s does not exist: training without evaluation", annotations)
        return None
    return load_split(data, "val")
