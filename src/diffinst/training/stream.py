"""The trainer's data: the training stream from where the run stands, and the val images."""

from __future__ import annotations

import math

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.training.loader import Process, TrainBatch, train_loader
from diffinst.training.module import DiffusionInstModule


class StreamData(pl.LightningDataModule):
    """Every process takes its slice of each batch, and every n-th val image."""

    def __init__(self, train: Split, val: Split | None, config: Config) -> None:
        super().__init__()
        self.train, self.val, self.config = train, val, config

    def train_dataloader(self) -> DataLoader[TrainBatch]:
        """Starts behind the last finished iteration: exact resume."""
        seen = self._module.iteration * self.config.train.batch_size
        return train_loader(self.train, self.config, start=seen, process=self._process)

    def val_dataloader(self) -> DataLoader[list[ImageRecord]] | list[object]:
        """As many as are predicted together; a process without any still takes part in scoring."""
        if self.val is None or not len(self.val.records):
            return []
        process = self._process
        mine = range(process.rank, len(self.val.records), process.world)
        chunks: DataLoader[list[ImageRecord]] = DataLoader(
            _Chunks(self.val, mine, self._module.images_at_once), batch_size=None, collate_fn=list
        )
        return chunks

    @property
    def _process(self) -> Process:
        assert self.trainer is not None
        return Process(self.trainer.global_rank, self.trainer.world_size)

    @property
    def _module(self) -> DiffusionInstModule:
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, DiffusionInstModule)
        return module


class _Chunks(Dataset[list[ImageRecord]]):
    """Records made when they are asked for; a single empty chunk where there are none."""

    def __init__(self, split: Split, places: range, size: int) -> None:
        self.split, self.places, self.size = split, places, size

    def __getitem__(self, index: int) -> list[ImageRecord]:
        chunk = self.places[index * self.size : (index + 1) * self.size]
        return [self.split.records[place] for place in chunk]

    def __len__(self) -> int:
        return max(math.ceil(len(self.places) / self.size), 1)
