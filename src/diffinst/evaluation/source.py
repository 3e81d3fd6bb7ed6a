"""A model and what tells it from another: its weights and configuration as they were loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffinst.acceleration.optimize import Precision, resolved
from diffinst.inference.predictor import DiffusionInst
from diffinst.weights import store
from diffinst.weights.store import CONFIG_FILE, WEIGHTS_FILE, CheckpointError

Origin = tuple[Path, Precision | None, bool, str, str]
"""A model's folder, precision, whether it is compiled, `Source.digest` and `.config_digest`."""

_PARTS = ("model", "preprocess", "sampler", "postprocess")  # of the config, that predictions use


@dataclass(frozen=True)
class Source:
    """A model and where it comes from.

    Attributes:
        model: Loaded.
        digest: SHA-256 of the files that were loaded, or of the weights of a model without files.
        folder: Its files, for other processes; None: it has none.
        compile_network: Whether processes that load the folder again compile the model.
    """

    model: DiffusionInst
    digest: str
    folder: Path | None = None
    compile_network: bool = False

    @classmethod
    def of(
        cls,
        model: DiffusionInst | Source | str | Path,
        device: str | None = None,
        precision: Precision = "fp32",
        *,
        compile_network: bool = False,
        processes: int = 1,
    ) -> Source:
        """A model as `evaluate` takes it: one that is loaded is used as it is.

        Raises:
            CheckpointError: As in `load`.
            ValueError: No such precision.
        """
        if isinstance(model, Source):
            return model
        if isinstance(model, DiffusionInst):
            return cls(model, _weights_digest(model))
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen = resolved(precision, torch.device(place))  # once, for all processes
        if processes > 1:  # loaded only to know it; the processes predict
            return replace(cls.load(model, "cpu", chosen), compile_network=compile_network)
        return cls.load(model, place, chosen, compile_network=compile_network)

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
        digest = hashlib.sha256()
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            with open(folder / file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        model = DiffusionInst.from_pretrained(folder, device=device)
        if _marks(folder) != before:
            raise CheckpointError(
                f"{folder} was written while it was loaded; start again when that has finished"
            )
        if precision is not None or compile_network:
            model = model.optimize(precision or "fp32", compile_network=compile_network)
        return cls(model, digest.hexdigest(), folder, compile_network)

    @property
    def name(self) -> str:
        """The folder's, for titles."""
        return "model" if self.folder is None else self.folder.name

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

    @property
    def origin(self) -> Origin:
        """What another process needs to load the same model.

        Raises:
            ValueError: The model has no files.
        """
        if self.folder is None:
            raise ValueError(
                "several processes load the model from its files: give its name or folder in the "
                "place of a loaded model, or processes=1"
            )
        how = (self.model.precision, self.compile_network)
        return (self.folder, *how, self.digest, self.config_digest)

    @classmethod
    def load_again(cls, origin: Origin, device: str) -> Source:
        """Load a model that another process has.

        Raises:
            CheckpointError: The files or the configuration are not the ones meant.
        """
        folder, precision, compile_network, *digests = origin
        source = cls.load(folder, device, precision, compile_network=compile_network)
        if [source.digest, source.config_digest] != digests:
            raise CheckpointError(
                f"{folder} is not the model that the evaluation began with (its files were "
                "written since, or its configuration was changed in memory): evaluate a folder "
                "that stays as it is"
            )
        return source


def _weights_digest(model: DiffusionInst) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _marks(folder: Path) -> list[tuple[int, int, int]]:
    """What changes with a file."""
    stats = [(folder / name).stat() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]
