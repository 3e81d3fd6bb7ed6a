"""The Lightning module: optimiser, schedule, logging and validation around `TrainingStep`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from diffinst.config import Config, TrainConfig
from diffinst.data.loader import TrainBatch
from diffinst.data.split import ImageRecord, Split
from diffinst.evaluation.evaluator import Evaluator
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.visualize import contact_sheet, overlay
from diffinst.io.atomic import atomic_path
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.criterion import Criterion
from diffinst.training.step import StepOutput, TrainingStep

SHEET_PICTURES = 6
SHEET_SCORE = 0.3
BAR_TERMS = ("class", "l1", "giou", "dice")


T = TypeVar("T")


class DiffusionInstModule(pl.LightningModule):
    """Trains one network.

    Args:
        config: Everything.
        class_counts: (K,) pictures per class, for the federated losses.
        pretrained: Start the backbone from ImageNet weights.
        val: Evaluated every `config.train.eval_every` iterations.
        out: Where sheets of val predictions go.
    """

    def __init__(
        self,
        config: Config,
        *,
        class_counts: Tensor | None = None,
        pretrained: bool = True,
        val: Split | None = None,
        out: Path | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.network = DiffusionInstNetwork(config.model, pretrained=pretrained)
        criterion = Criterion(config.criterion, class_counts)
        self.step = TrainingStep(self.network, criterion, config.train.proposals)
        self.val = val
        self.out = out
        self.evaluated_at = -1
        self._evaluator: Evaluator | None = None
        self._sheet: list[tuple[Any, str]] = []

    def on_train_batch_start(self, batch: TrainBatch, batch_index: int) -> None:
        """What an iteration draws (federated classes, stochastic depth) follows from its number."""
        rng = np.random.default_rng([self.config.train.seed, 2, self.global_step])
        torch.manual_seed(int(rng.integers(2**62)))

    def training_step(self, batch: TrainBatch, batch_index: int) -> Tensor:
        """Loss of one batch; logs every term."""
        output: StepOutput = self.step(batch.images, batch.targets, batch.draws)
        losses = output.losses
        size = len(batch.images)
        shown = {"loss": losses["loss"], **{t: losses[f"loss/{t}"] for t in BAR_TERMS}}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=size)
        self.log_dict(
            {"loss/total" if k == "loss" else k: v for k, v in losses.items()}, batch_size=size
        )
        return losses["loss"]

    def transfer_batch_to_device(
        self, batch: T, device: torch.device, dataloader_idx: int
    ) -> T | TrainBatch:
        """Our batches know how to move."""
        return batch.to(device) if isinstance(batch, TrainBatch) else batch

    def on_validation_epoch_start(self) -> None:
        """Start a fresh evaluation."""
        assert self.val is not None
        self._evaluator = Evaluator(
            self.val, self.config.postprocess.max_detections, self.config.model.class_names
        )
        self._sheet = []

    def validation_step(self, batch: list[ImageRecord], batch_index: int) -> None:
        """Predict one picture."""
        assert self._evaluator is not None
        model = DiffusionInst(self.network, self.config)
        with torch.autocast(self.device.type, enabled=False):
            for record in batch:
                found = model.predict(record.path, threshold=0.0)
                self._evaluator.add(record, found)
                if len(self._sheet) < SHEET_PICTURES and found.image is not None:
                    confident = found.above(SHEET_SCORE)
                    self._sheet.append((overlay(found.image, confident), record.path.name))

    def on_validation_epoch_end(self) -> None:
        """Log AP and save a sheet of predictions."""
        assert self._evaluator is not None
        mask, box = self._evaluator.compute()
        values = {**mask.as_dict("mask"), **box.as_dict("box")}
        self.log_dict({f"val/{k}": v for k, v in values.items()})
        self.log("AP", mask.ap, prog_bar=True, logger=False)
        if self.out is not None and self._sheet:
            path = self.out / "val_predictions" / f"iteration_{self.global_step:07d}.png"
            sheet = contact_sheet(self._sheet, columns=3)
            with atomic_path(path) as temporary:
                sheet.save(temporary, format="PNG")
        self._evaluator, self._sheet = None, []
        self.evaluated_at = self.global_step

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over everything that learns; warm-up, then steps or a cosine."""
        train = self.config.train
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, train),
            lr=train.lr,
            weight_decay=train.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: lr_factor(i, train))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"},
        }


def parameter_groups(network: DiffusionInstNetwork, train: TrainConfig) -> list[dict[str, Any]]:
    """The backbone's parameters with their own learning rate, and all others."""
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    own = {id(p) for p in backbone}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": train.lr}]
    if backbone:
        groups.append({"params": backbone, "lr": train.lr * train.backbone_lr_factor})
    return groups


def lr_factor(iteration: int, train: TrainConfig) -> float:
    """Learning rate of an iteration, relative to `train.lr`.

    Example:
        >>> train = TrainConfig(warmup=10, iterations=100, milestones=(50, 80))
        >>> [round(lr_factor(i, train), 3) for i in (0, 10, 49, 50, 80)]
        [0.01, 1.0, 1.0, 0.1, 0.01]
    """
    warm = 1.0
    if iteration < train.warmup:
        share = iteration / train.warmup
        warm = train.warmup_factor * (1 - share) + share
    if train.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / train.iterations)))
    passed = sum(iteration >= milestone for milestone in train.milestones)
    return warm * float(0.1**passed)
