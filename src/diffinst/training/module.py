"""The Lightning module: optimiser, schedule, logging and validation around `TrainingStep`."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.report import finite
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.batch_norm import running_statistics
from diffinst.training.criterion import Criterion
from diffinst.training.loader import Process, TrainBatch
from diffinst.training.micro_batches import MicroBatches
from diffinst.training.optimizer import freeze, lr_factor, parameter_groups
from diffinst.training.recompute import recompute_activations
from diffinst.training.run_folder import BEST, METRICS_FILE, SHEETS
from diffinst.training.step import TrainingStep
from diffinst.training.validation import Validation
from diffinst.weights import store

BAR_TERMS = ("class", "l1", "giou", "dice")
logger = logging.getLogger(__name__)
T = TypeVar("T")


class DiffusionInstModule(pl.LightningModule):
    """Trains one network.

    Args:
        config: Everything.
        class_counts: (K,) images per class, for the federated losses.
        pretrained: Start the backbone from ImageNet weights.
        val: Evaluated every `config.train.eval_every` iterations.
        out: Where the best model and sheets of val predictions go.

    Attributes:
        iteration: Steps done, those without an update included; where the stream stands.
        best: Mask AP of the best evaluation so far.
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
        self.automatic_optimization = False  # one step may take several backward passes, or none
        self.config = config
        self.network = DiffusionInstNetwork(config.model, pretrained=pretrained)
        freeze(self.network, config.train.freeze)
        criterion = Criterion(config.criterion, class_counts)
        train = config.train
        self.step = TrainingStep(self.network, criterion, train.proposals, train.starts)
        if config.train.activation_checkpointing:
            recompute_activations(self.network)
        self.train()
        self.val = val
        self.out = out
        self.iteration = 0
        self.best = -1.0
        self.evaluated_at = -1
        self._bad = 0
        self._stopped = False
        self._validation: Validation | None = None

    def train(self, mode: bool = True) -> DiffusionInstModule:
        """Frozen parts stay as at test time, so that their running statistics do not move."""
        super().train(mode)
        for part in self.config.train.freeze:
            self.network.get_submodule(part).eval()
        return self

    def on_save_checkpoint(self, state: dict[str, Any]) -> None:
        """Where the stream stands, and the best so far."""
        stopped = bool(self.trainer.should_stop)
        state["diffinst"] = {"iteration": self.iteration, "best": self.best, "stopped": stopped}

    def on_load_checkpoint(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            CheckpointError: It is the checkpoint of another model.
        """
        wrong = store.differences(state["state_dict"], self.state_dict())
        if wrong:
            label, keys = next(iter(wrong.items()))
            raise store.CheckpointError(
                f"the checkpoint in {self.out} is of another model ({len(keys)} tensors {label}: "
                f"{keys[0]}); put the run's own one back, or start again without --resume"
            )
        own = state["diffinst"]
        self.iteration, self.best = int(own["iteration"]), float(own["best"])
        self._stopped = bool(own["stopped"])

    def on_train_start(self) -> None:
        """A run that early stopping had ended stays ended."""
        self.trainer.should_stop = self.trainer.should_stop or self._stopped

    def training_step(self, batch: TrainBatch, batch_index: int) -> None:
        """One optimiser step: every micro-batch forward and backward, then one update."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        process = Process(self.global_rank, self.trainer.world_size)
        micro_batches = MicroBatches(self.step, self.config, self.iteration, process)
        parts = batch.split(self.config.train.accumulate)
        matches = micro_batches.matches(parts)
        common = None if matches is None else micro_batches.common(parts, matches)
        statistics = [(value, value.clone()) for value in running_statistics(self.network)]
        optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            micro_batches.seed(i)
            match = None if matches is None else matches[i]
            with self._gradients_stay_here(i + 1 < len(parts)):
                predicted = self.step.predict(part.images, part.targets, part.draws, match=match)
                whole = common or micro_batches.common([part], [predicted.match])
                losses = self.step.losses(predicted, pairs=whole.pairs, federated=whole.federated)
                with torch.autocast(self.device.type, enabled=False):
                    self.manual_backward(losses["loss"] / len(parts))
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() / len(parts)
        if not self._update(optimizer, batch):
            for value, before in statistics:
                value.copy_(before)
        schedule.step()
        self.iteration += 1
        self._log_losses(total, len(batch))

    def _gradients_stay_here(self, wait: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once a step, in its last backward pass."""
        model = self.trainer.strategy.model
        if wait and isinstance(model, DistributedDataParallel):
            context: AbstractContextManager[None] = model.no_sync()
            return context
        return nullcontext()

    def _update(self, optimizer: LightningOptimizer, batch: TrainBatch) -> bool:
        """Clip and step; without a finite gradient no weight changes. Whether it was a step."""
        train = self.config.train
        learning = [p for p in self.network.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(learning, train.clip_norm)
        if bool(torch.isfinite(norm)):
            self._bad = 0
            optimizer.step()
            return True
        self._bad += 1
        ids = ", ".join(str(t.image_id) for t in batch.targets)
        logger.warning(
            "iteration %d: loss or gradient not finite, step skipped (%d in a row), image ids %s",
            self.iteration,
            self._bad,
            ids,
        )
        if self._bad >= train.bad_steps:
            raise FloatingPointError(
                f"{self._bad} steps in a row without a finite loss and gradient, the last at "
                f"iteration {self.iteration} with image ids {ids}; lower train.lr ({train.lr:g}), "
                f"use train.precision 32 (is {train.precision}), or look at these images with "
                "`diffinst doctor`; the last checkpoint is intact"
            )
        return False

    def _log_losses(self, losses: dict[str, Tensor], size: int) -> None:
        """The step's losses, over all processes."""
        if self.trainer.world_size > 1:
            stacked = torch.stack(list(losses.values()))
            torch.distributed.all_reduce(stacked)
            losses = dict(zip(losses, stacked / self.trainer.world_size, strict=True))
        shown = {"loss": losses["loss"], **{t: losses[f"loss/{t}"] for t in BAR_TERMS}}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=size)
        self.log_dict(
            {"loss/total" if k == "loss" else k: v for k, v in losses.items()}, batch_size=size
        )

    def transfer_batch_to_device(
        self, batch: T, device: torch.device, dataloader_idx: int
    ) -> T | TrainBatch:
        """Our batches know how to move."""
        return batch.to(device) if isinstance(batch, TrainBatch) else batch

    @property
    def images_at_once(self) -> int:
        """Val images that a process takes at a time: some are read while others are predicted."""
        return max(8, DiffusionInst(self.network, self.config)._runner().at_once)

    def on_validation_epoch_start(self) -> None:
        """Start a fresh evaluation."""
        assert self.val is not None
        self._validation = Validation(self.network, self.config, self.val)

    def validation_step(self, batch: list[ImageRecord], batch_index: int) -> None:
        """Predict some images."""
        assert self._validation is not None
        with torch.autocast(self.device.type, enabled=False):
            self._validation.predict(batch)

    def on_validation_epoch_end(self) -> None:
        """Score the images of all processes; keep the best model and a sheet of predictions."""
        done, self._validation = self._validation, None
        assert done is not None
        for message in done.failed:
            logger.warning("not evaluated: %s", message)
        report = done.report(self.trainer.world_size)
        mask, box = report.mask, report.box
        values = {**mask.as_dict("mask"), **box.as_dict("box")}
        self.log_dict({f"val/{k}": v for k, v in values.items()})
        self.log("AP", report.mask.ap, prog_bar=True, logger=False)
        if self.out is not None and self.trainer.is_global_zero:
            sheet = self.out / SHEETS / f"iteration_{self.iteration:07d}.png"
            done.save_sheet(sheet, self.iteration)
            if mask.ap > self.best:
                folder = self.out / BEST
                store.save(self.network, self.config, folder)
                scores = {"iteration": self.iteration, **finite(values)}
                write_json(folder / METRICS_FILE, scores)
        self.best = max(self.best, mask.ap)
        self.evaluated_at = self.iteration

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over everything that learns; warm-up, then steps or a cosine."""
        train = self.config.train
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, train),
            lr=train.lr,
            weight_decay=train.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: lr_factor(i, train))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"},
        }
