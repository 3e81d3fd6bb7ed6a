"""The trainer's data: the training stream from where the run stands, and the val images."""

from __future__ import annotations

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
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, DiffusionInstModule)
        seen = module.iteration * self.config.train.batch_size
        process = Process(self.trainer.global_rank, self.trainer.world_size)
        return train_loader(self.train, self.config, start=seen, process=process)

    def val_dataloader(self) -> DataLoader[list[ImageRecord]] | list[object]:
        """One image at a time; a process for which none is left still takes part in scoring."""
        if self.val is None or not len(self.val.records):
            return []
        assert self.trainer is not None
        mine = range(self.trainer.global_rank, len(self.val.records), self.trainer.world_size)
        records: DataLoader[list[ImageRecord]] = DataLoader(
            _OneByOne(self.val, mine), batch_size=None, collate_fn=list
        )
        return records


class _OneByOne(Dataset[list[ImageRecord]]):
    """Records made when they are asked for; a single empty item where there are none."""

    def __init__(self, split: Split, places: range) -> None:
        self.split, self.places = split, places

    def __getitem__(self, index: int) -> list[ImageRecord]:
        return [self.split.records[self.places[index]]] if self.places else []

    def __len__(self) -> int:
        return max(len(self.places), 1)
