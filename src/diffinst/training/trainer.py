"""The trainer of a run: devices, precision, checkpoints, early stop, loggers, progress."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    TQDMProgressBar,
)
from pytorch_lightning.strategies import DDPStrategy

from diffinst.config import Config
from diffinst.training import progress as standing
from diffinst.training.average import WarmAverage
from diffinst.training.checkpoints import AtomicCheckpoints, RegularCheckpoints
from diffinst.training.loggers import make_loggers
from diffinst.training.progress import ProgressCalls, Tell
from diffinst.training.run_folder import CHECKPOINT

MOST = 4096  # devices of a machine, and machines
SCORE = "val/mask/AP"


def check_processes(devices: int, nodes: int) -> None:
    """Refuse numbers of devices and machines that are none.

    Raises:
        ValueError: Names both.
    """
    if not (1 <= devices <= MOST and 1 <= nodes <= MOST):
        raise ValueError(
            f"--devices {devices} --nodes {nodes}: allowed are numbers from 1 to {MOST}"
        )


def make_trainer(
    config: Config,
    out: Path,
    *,
    devices: int = 1,
    nodes: int = 1,
    progress: bool | Tell = True,
    validate: bool = True,
) -> pl.Trainer:
    """The trainer of a run; everything it writes lies below `out`.

    Args:
        config: `train` says how long, how precise, how often.
        out: Run folder.
        devices: GPUs a machine, or processes where there is no GPU.
        nodes: Machines.
        progress: Show a bar; where stdout is no terminal, a line now and then. Or who is told.
        validate: There is a val split.

    Raises:
        ValueError: More GPUs asked for than there are, or a logger that is not installed.
    """
    train = config.train
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and devices > gpus:
        raise ValueError(f"--devices {devices}: this machine has {gpus} GPUs")
    every = train.eval_every or train.iterations
    callbacks: list[Callback] = [
        RegularCheckpoints(
            out / CHECKPOINT,
            min(train.checkpoint_every, train.iterations),
            every if validate else 0,
        )
    ]
    if train.loggers:
        callbacks.append(LearningRateMonitor("step"))
    if train.ema:
        callbacks.append(WarmAverage(train.ema))
    if train.patience and validate:
        stopping = EarlyStopping(
            SCORE, patience=train.patience, mode="max", verbose=True, check_finite=False
        )  # a val split without objects has no AP: that is no better one
        callbacks.append(stopping)
    bar = progress is True and sys.stdout.isatty()
    if bar:
        callbacks.append(TQDMProgressBar(refresh_rate=1))
    elif progress is True:
        callbacks.append(ProgressCalls(train.iterations, standing.say, standing.EVERY))
    elif progress:
        callbacks.append(ProgressCalls(train.iterations, progress, standing.OFTEN))
    return pl.Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy() if devices * nodes > 1 else "auto",
        max_steps=train.iterations,
        max_epochs=1,
        precision="bf16-mixed" if train.precision == "bf16" else "32-true",
        log_every_n_steps=train.log_every,
        val_check_interval=every if validate else None,
        check_val_every_n_epoch=None if validate else 1,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=make_loggers(config, out),
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(out),
    )
