"""Starting from weights that were trained on other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import store
from diffinst.weights.convert import convert

FOREIGN = (".pth", ".pkl", ".pt", ".bin")


@dataclass(frozen=True)
class Origin:
    """Trained weights to start from.

    Attributes:
        source: What the user named.
        config: Saved with them.
        tensors: By name.
    """

    source: str
    config: Config
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, source: str | Path) -> Origin:
        """Read a model of ours (name, folder, file, hub id) or an official file.

        Raises:
            CheckpointError: Nothing there, or nothing usable.
            ValueError: A file that is not a whole model.
        """
        path = Path(source)
        if path.is_file() and path.suffix in FOREIGN:
            converted = convert(path)
            if converted.config is None:
                raise ValueError(
                    f"{path} holds a backbone only; give it as --model.backbone.weights-file"
                )
            return cls(str(source), converted.config, converted.tensors)
        network, config = store.load(source)
        return cls(str(source), config, network.state_dict())

    def fill(self, network: DiffusionInstNetwork, names: Sequence[str]) -> str:
        """Load everything; of the class layers, the rows of classes with the same name.

        Args:
            network: Of the same architecture but for its classes; new classes keep their fresh
                weights.
            names: Its classes.

        Returns:
            What was done, for a person.

        Raises:
            CheckpointError: Another architecture.
        """
        old = list(self.config.model.class_names)
        shared = [name for name in names if name in old]
        rows = [(names.index(name), old.index(name)) for name in shared]
        tensors = dict(self.tensors)
        for key, fresh in network.state_dict().items():
            if not _is_class_layer(key) or key not in tensors:
                continue
            if tensors[key].shape[1:] != fresh.shape[1:]:  # `store.fill` says what is wrong
                continue
            filled = fresh.clone()
            for new_row, old_row in rows:
                filled[new_row] = tensors[key][old_row]
            tensors[key] = filled
        store.fill(network, tensors, source=self.source)
        fresh_names = [name for name in names if name not in old]
        if not fresh_names:
            return f"all weights from {self.source}, whose classes are the same or more"
        kept = f"kept for {', '.join(shared[:5])}; " if shared else ""
        more = ", ..." if len(fresh_names) > 5 else ""
        return (
            f"weights from {self.source}; class layers {kept}re-initialised for "
            f"{', '.join(fresh_names[:5])}{more}"
        )


def _is_class_layer(key: str) -> bool:
    return key.split(".")[-2] == "class_logits"
