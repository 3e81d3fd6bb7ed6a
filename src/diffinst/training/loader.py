"""From annotated images to training batches: an endless, seekable stream and its loader.

Everything random about the k-th image of the stream (which image, geometry, noise) follows from
the seed and k alone, so a run resumed at k, with other workers or processes, sees the same
images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffinst.config import Config, TrainConfig
from diffinst.datasets.segmentation import DatasetError, rasterize
from diffinst.datasets.split import ImageRecord, Split
from diffinst.diffusion.signal import Corruption
from diffinst.io.images import read_image
from diffinst.ops.images import pad_batch
from diffinst.structures import ImageBatch, Targets
from diffinst.training.colour import jitter_stain
from diffinst.training.repeat import colour_factors, repeat_factors
from diffinst.training.transforms import MaskMap, Step, draw_steps, jitter_colour

MIN_OBJECT = 1.0  # pixels of the network input: thinner boxes are dropped after a crop


@dataclass(frozen=True)
class TrainBatch:
    """What one training step needs."""

    images: ImageBatch
    targets: list[Targets]
    draws: list[Corruption]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)

    def split(self, parts: int) -> list[TrainBatch]:
        """Equal micro-batches, padded like the whole."""
        size = len(self) // parts
        return [
            TrainBatch(
                ImageBatch(self.images.pixels[i : i + size], self.images.sizes[i : i + size]),
                self.targets[i : i + size],
                self.draws[i : i + size],
            )
            for i in range(0, len(self), size)
        ]

    def pin_memory(self) -> TrainBatch:
        """The images in page-locked memory, from where a GPU takes them while it works."""
        images = ImageBatch(self.images.pixels.pin_memory(), self.images.sizes)
        return TrainBatch(images, self.targets, self.draws)

    def to(self, device: torch.device | str) -> TrainBatch:
        """The same batch on another device; random draws stay on the CPU."""
        targets = [t.to(device) for t in self.targets]
        return TrainBatch(self.images.to(device), targets, self.draws)


class TrainStream(Dataset[tuple[Tensor, Targets, Corruption]]):
    """Item k of an endless stream that goes through the data in a new order each epoch.

    Args:
        split: Annotated images.
        config: Augmentation, proposals, seed, repeats.
    """

    def __init__(self, split: Split, config: Config) -> None:
        if not len(split.records):
            raise DatasetError(f"{split.annotation_file}: no images to train on")
        self.split = split
        self.config = config
        threshold = config.train.repeat_threshold
        factors = repeat_factors(split, threshold) if threshold else np.ones(len(split.records))
        if config.train.repeat_colour > 1:
            factors = factors * colour_factors(split, config.train.repeat_colour, config.preprocess)
        self.factors = factors
        self.epoch_length = math.ceil(float(factors.sum()))  # up: no image is omitted
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Indices of the images of an epoch; rare ones appear as often as their factor says.

        Every epoch has `epoch_length` items: factors are turned into counts by systematic sampling
        in a random order, whose expectation is the factor.
        """
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.config.train.seed, 0, epoch])
            self._order = (epoch, shuffled_repeats(self.factors, self.epoch_length, rng))
        return self._order[1]

    def __getitem__(self, k: int) -> tuple[Tensor, Targets, Corruption]:
        """Image (3, h, w) uint8, its objects, its random draws."""
        seed = self.config.train.seed
        epoch, position = divmod(k, self.epoch_length)
        record = self.split.records[int(self.order(epoch)[position])]
        rng = np.random.default_rng([seed, 1, k])
        pixels, targets = load_augmented(record, self.config, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        diffusion, train = self.config.model.diffusion, self.config.train
        draw = Corruption.draw(train.proposals, len(targets), diffusion, generator, train.starts)
        return pixels, targets, draw


def shuffled_repeats(
    factors: npt.NDArray[np.float64], length: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(length,) indices in random order, index i about factors[i] times.

    Args:
        factors: (n,) at least 1 each, so that every index appears.
        length: Their sum, rounded up.
        rng: Source of the order and of the fractions.
    """
    order = rng.permutation(len(factors))
    if length == len(factors):
        return order
    ends = np.cumsum(factors[order]) * (length / factors.sum())
    ends[-1] = length
    counts = np.diff(np.floor(ends + rng.uniform()), prepend=0).astype(np.int64)
    return rng.permutation(np.repeat(order, counts))


def load_augmented(
    record: ImageRecord, config: Config, rng: np.random.Generator
) -> tuple[Tensor, Targets]:
    """One image and its objects after random geometry and colour."""
    image = read_image(record.path, config.preprocess)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    if size != (record.height, record.width):
        raise DatasetError(
            f"{record.path}: the image is {size[0]}x{size[1]} (height x width, EXIF rotation "
            f"applied), its annotations (image {record.id}) say {record.height}x{record.width}; "
            "correct the annotations, or export the images at the annotated size"
        )
    steps = draw_steps(size, config.augment, rng)
    targets = transform_targets(record, size, steps)
    for step in steps:
        pixels = step.pixels(pixels)
    pixels = jitter_stain(pixels, config.augment.stain, rng)
    pixels = jitter_colour(pixels, config.augment.colour, rng)
    return pixels.contiguous(), targets


def transform_targets(record: ImageRecord, size: tuple[int, int], steps: Sequence[Step]) -> Targets:
    """Objects of an image after the geometry; masks are made one at a time, crowds omitted."""
    annotations = [a for a in record.annotations if not a.crowd]
    boxes = torch.tensor([a.box for a in annotations], dtype=torch.float32).view(-1, 4)
    labels = torch.tensor([a.label for a in annotations], dtype=torch.int64)
    final = size
    for step in steps:
        boxes, final = step.boxes(boxes, final), step.size(final)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_OBJECT).all(1)
    transform = MaskMap.of(size, steps)
    masks, keep = [], []
    for i in torch.nonzero(large)[:, 0].tolist():
        mask = transform(rasterize(annotations[i].segmentation, *size))
        if mask is not None:
            masks.append(mask)
            keep.append(i)
    stacked = torch.stack(masks) if masks else torch.zeros(0, *final, dtype=torch.bool)
    return Targets(boxes[keep], labels[keep], stacked, record.id)


@dataclass(frozen=True)
class Process:
    """Which of several processes this is."""

    rank: int = 0
    world: int = 1


class StreamSampler(Sampler[int]):
    """The positions of a stream that one process takes: its slice of every batch.

    Args:
        stop: End of the stream, a multiple of `batch`.
        start: Where to begin, a multiple of `batch`.
        batch: Images a step, over all processes.
        process: Which process this is.
    """

    def __init__(
        self, stop: int, start: int = 0, batch: int = 1, process: Process | None = None
    ) -> None:
        self.stop = stop
        self.start = start
        self.batch = batch
        self.process = process or Process()

    def __iter__(self) -> Iterator[int]:
        """The positions."""
        size = self.batch // self.process.world
        for step in range(self.start, self.stop, self.batch):
            first = step + self.process.rank * size
            yield from range(first, first + size)

    def __len__(self) -> int:
        """Positions of the whole stream, wherever it starts.

        A resumed trainer goes on counting where it stopped. Were it told how many are left, it
        would take the stream for finished too early and go through the same positions again.
        """
        return self.stop // self.process.world


def collate(items: Sequence[tuple[Tensor, Targets, Corruption]]) -> TrainBatch:
    """Pad images to one size."""
    images = pad_batch([pixels for pixels, _, _ in items])
    return TrainBatch(images, [t for _, t, _ in items], [d for _, _, d in items])


def images_each(train: TrainConfig, processes: int) -> int:
    """Images of a batch that each of several processes takes.

    Raises:
        ValueError: The batch cannot be split evenly.
    """
    parts = processes * train.accumulate
    if train.batch_size % parts:
        raise ValueError(
            f"train.batch_size {train.batch_size} cannot be split evenly over {processes} "
            f"processes x {train.accumulate} micro-batches; use a multiple of {parts}"
        )
    return train.batch_size // processes


def train_loader(
    split: Split, config: Config, *, start: int = 0, process: Process | None = None
) -> DataLoader[TrainBatch]:
    """The training stream in batches.

    Args:
        split: Annotated images.
        config: Batch size, workers, iterations.
        start: Images already seen (iterations done times batch size).
        process: Which of several processes this is; a batch is its slice of the step's batch.

    Raises:
        ValueError: The batch cannot be split evenly.
    """
    train, process = config.train, process or Process()
    end = train.iterations * train.batch_size
    loader: DataLoader[TrainBatch] = DataLoader(
        TrainStream(split, config),  # type: ignore[arg-type]
        batch_size=images_each(train, process.world),
        sampler=StreamSampler(end, start, train.batch_size, process),
        num_workers=train.workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        worker_init_fn=_one_thread,
    )
    return loader


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
