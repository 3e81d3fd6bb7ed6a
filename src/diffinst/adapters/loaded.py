"""The model that an adapter works with, loaded once."""

from __future__ import annotations

from functools import lru_cache

import torch

from diffinst.inference.predictor import DiffusionInst


@lru_cache(maxsize=2)  # programs ask for the same one with every image
def loaded(name: str, device: str | None = None) -> DiffusionInst:
    """A model, the one of the last call where it is asked for again.

    Args:
        name: Of shipped weights, a folder, a file or a hub id.
        device: cpu, cuda, ...; None: a GPU if there is one.

    Raises:
        CheckpointError: Nothing there or not usable; says why.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return DiffusionInst.from_pretrained(name, device=where)
