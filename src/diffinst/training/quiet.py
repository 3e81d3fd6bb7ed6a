"""What Lightning and torch say that a run of ours makes untrue, or that is no news to its user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("pytorch_lightning", "lightning_fabric")
NOT_SO = (
    "You're resuming from a checkpoint that ended before the epoch ended",
    "Checkpoint directory .* exists and is not empty",
    "You have overridden `transfer_batch_to_device`",
    "The '.*_dataloader' does not have many workers",
    "Using ModelCheckpoint with manual optimization",
    "The number of training batches .* is smaller than the logging interval",
    "Found .* in eval mode at the start of training",  # train.freeze
    "It is recommended to use .* when logging on epoch level",  # all processes score all images
    "Detected call of `lr_scheduler.step",  # the first step was skipped
    r".*treespec, LeafSpec",  # Lightning's use of torch
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep that away while the block runs; warnings of other kinds and errors are said."""
    before = {name: logging.getLogger(name).level for name in LIBRARIES}
    with warnings.catch_warnings():
        for message in NOT_SO:
            warnings.filterwarnings("ignore", message=message)
        for name in LIBRARIES:  # devices it did not find, tips, what it will not restore
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
