"""Which model is evaluated, exactly? Its weights and configuration as they were loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from diffinst.acceleration.optimize import Precision
from diffinst.inference.predictor import DiffusionInst
from diffinst.weights import store
from diffinst.weights.store import CONFIG_FILE, WEIGHTS_FILE, CheckpointError

_PARTS = ("model", "preprocess", "sampler", "postprocess")  # of the config, that predictions use


@dataclass(frozen=True)
class Source:
    """A model and where it comes from.

    Attributes:
        model: Loaded.
        folder: Its files, for other processes.
        digest: SHA-256 of the files that were loaded, to tell one model from another.
        compile_network: Whether processes that load the folder again compile the model.
    """

    model: DiffusionInst
    folder: Path
    digest: str
    compile_network: bool = False

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str = "cpu",
        precision: Precision | None = None,
        *,
        compile_network: bool = False,
    ) -> Source:
        """Load a model.

        Args:
            name: As in `DiffusionInst.from_pretrained`.
            device: Where it runs.
            precision: As in `DiffusionInst.optimize`; None: as it was saved.
            compile_network: As in `DiffusionInst.optimize`; float32 where no precision is given.

        Raises:
            CheckpointError: Nothing there, not usable, or written meanwhile; says why.
        """
        folder = store.locate(name)
        before = _marks(folder)
        digest = _digest(folder)
        model = DiffusionInst.from_pretrained(folder, device=device)
        if _marks(folder) != before:
            raise CheckpointError(
                f"{folder} was written while it was loaded; start again when that has finished"
            )
        if precision is not None or compile_network:
            model = model.optimize(precision or "fp32", compile_network=compile_network)
        return cls(model, folder, digest, compile_network)

    @property
    def config_digest(self) -> str:
        """SHA-256 of what predictions use of the configuration, as it is in memory."""
        values = self.model.config.to_dict()
        used = {part: values[part] for part in _PARTS}
        network = self.model.network
        if network.dtype != torch.float32:  # said only then: stores of earlier versions stay valid
            kinds = (network.dtype, network.backbone.dtype)
            used["dtype"] = ", ".join(str(kind) for kind in dict.fromkeys(kinds))
        text = json.dumps(used, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_same(self, digest: str, config_digest: str) -> None:
        """Refuse to stand in for another model.

        Raises:
            CheckpointError: The files or the configuration are not the ones meant.
        """
        if (self.digest, self.config_digest) != (digest, config_digest):
            raise CheckpointError(
                f"{self.folder} is not the model that the evaluation began with (its files were "
                "written since, or its configuration was changed in memory): evaluate a folder "
                "that stays as it is"
            )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with open(folder / name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _marks(folder: Path) -> list[tuple[int, int, int]]:
    """What changes with a file."""
    stats = [(folder / name).stat() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]
