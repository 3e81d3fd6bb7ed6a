"""Starting from weights that were trained on other classes, ours or another library's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffinst.config import Config, preset_names
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import detectors, hubs, store
from diffinst.weights.convert import COUNTER, convert_state
from diffinst.weights.foreign import PICKLES, read_foreign
from diffinst.weights.sizes import nearest_preset
from diffinst.weights.store import CheckpointError

COCO_CLASSES = 80
FIXED = ("image_mean", "image_std", "stride_in_1x1")  # what a backbone's weights take for granted


@dataclass(frozen=True)
class Origin:
    """Trained weights to start from.

    Attributes:
        source: What the user named.
        config: Saved with them; of a detector of another library, the preset nearest to it.
        tensors: By name.
        whole: All of a model of ours; else backbone and pyramid of another library's detector.
    """

    source: str
    config: Config
    tensors: Mapping[str, Tensor]
    whole: bool = True

    @classmethod
    def read(cls, source: str | Path) -> Origin:
        """Read a model of ours (name, folder, file, hub id), an official file, or a detector.

        Args:
            source: Of a detector: `torchvision:MODEL`, `transformers:OWNER/NAME`, a file of
                detectron2's model zoo, or a file in the layout of one of the three.

        Raises:
            CheckpointError: Nothing there, or nothing usable.
            ValueError: A file that is no whole model and no detector.
        """
        state = _foreign(source)
        if state is None:
            network, config = store.load(source)
            return cls(str(source), config, network.state_dict())
        if detectors.layout(state) is not None:
            found = detectors.parts(state, str(source))
            fields = {"name": found.backbone.name, "stride_in_1x1": found.backbone.stride_in_1x1}
            preset = nearest_preset(found.backbone.name, COCO_CLASSES)
            config = preset.updated(model={"backbone": fields})
            return cls(str(source), config, found.tensors, whole=False)
        converted = convert_state(state, source=str(source))
        if converted.config is None:
            raise ValueError(
                f"{source} holds a backbone only; give it as --model.backbone.weights-file"
            )
        return cls(str(source), converted.config, converted.tensors)

    def onto(self, chosen: Config) -> Config:
        """A configuration with what these weights decide: the model, or how its backbone reads.

        A Swin of the same size takes their window, too.
        """
        if self.whole:
            return chosen.updated(model=self.config.model.model_dump(mode="json"))
        mine = self.config.model.backbone.model_dump(mode="json")
        same = _kind(mine["name"]) == _kind(chosen.model.backbone.name)
        fields = (*FIXED, "name") if same else FIXED
        return chosen.updated(model={"backbone": {field: mine[field] for field in fields}})

    def fill(self, network: DiffusionInstNetwork, names: Sequence[str]) -> str:
        """Load everything; of the class layers, the rows of classes with the same name.

        Args:
            network: Of the same architecture but for its classes; new classes keep their fresh
                weights. For a detector's parts, of the same backbone.
            names: Its classes.

        Returns:
            What was done, for a person.

        Raises:
            CheckpointError: Another architecture.
        """
        if not self.whole:
            return self._fill_parts(network)
        old = list(self.config.model.names)  # those that have none are `class 0`, ...
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

    def _fill_parts(self, network: DiffusionInstNetwork) -> str:
        """The backbone, which has to fit, and the pyramid where it does."""
        expected = network.state_dict()
        theirs = dict(self.tensors)
        if network.config.backbone.norm == "train":
            theirs = {_trained_norm(key): value for key, value in theirs.items()}
        counters = [k for k in expected if k.startswith("backbone.") and k.endswith(COUNTER)]
        theirs.update({k: torch.zeros_like(expected[k]) for k in counters})
        backbone, pyramid = (_below(prefix, theirs) for prefix in ("backbone.", "fpn."))
        if store.differences(backbone, _below("backbone.", expected)):
            raise CheckpointError(self._misfit(network))
        for field in FIXED:
            needed = getattr(self.config.model.backbone, field)
            if getattr(network.config.backbone, field) != needed:
                raise CheckpointError(
                    f"{self.source} needs model.backbone.{field} {needed}, and here it is "
                    f"{getattr(network.config.backbone, field)}; omit the field"
                )
        fits = not store.differences(pyramid, _below("fpn.", expected))
        network.load_state_dict({**backbone, **(pyramid if fits else {})}, strict=False)
        taken, new = f"backbone ({len(backbone) - len(counters)} tensors)", ""
        if fits:
            taken += f" and pyramid ({len(pyramid)} tensors)"
        else:
            new = f"pyramid ({_why_new(pyramid, network)}), "
        return f"{self.source} gives the {taken}; new are {new}mask branch and decoder"

    def _misfit(self, network: DiffusionInstNetwork) -> str:
        name = self.config.model.backbone.name
        presets = [
            preset
            for preset in preset_names()
            if preset.endswith("-coco")
            and _kind(Config.from_preset(preset).model.backbone.name) == _kind(name)
        ]
        how = f"--preset {presets[0]}, or " if presets else ""
        return (
            f"{self.source} gives the backbone {name}, which does not fit "
            f"{network.config.backbone.name}; use {how}--model.backbone.name {name}"
        )


def _foreign(source: str | Path) -> dict[str, Tensor] | None:
    """The tensors of what is no model of ours; None: it should be one."""
    path = Path(source)
    if not path.exists() and hubs.is_name(str(source)):
        return hubs.fetch(str(source))
    if path.is_file() and path.suffix.lower() in PICKLES:
        return read_foreign(path)
    file = path / store.WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        return None
    try:
        with safe_open(str(file), framework="pt") as opened:
            known = detectors.layout(opened.keys())
    except (SafetensorError, OSError):  # `store.load` says what is wrong
        return None
    return read_foreign(file) if known else None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key.startswith(prefix)}


def _kind(name: str) -> str:
    """A timm name without window and training: `swin_base_patch4`, `resnet50`."""
    return name.split("_window")[0].split(".")[0]


def _trained_norm(key: str) -> str:
    """A name with a frozen norm in it, as it is where the norm is trained."""
    key = re.sub(r"\.norm_(mean|var)$", r".norm_running_\1", key)
    key = re.sub(r"\.conv(\d)\.norm_", r".bn\1.", key)
    return key.replace(".downsample.0.norm_", ".downsample.1.")


def _why_new(pyramid: Mapping[str, Tensor], network: DiffusionInstNetwork) -> str:
    if not pyramid:
        return "none of this form there"
    there = len(pyramid["fpn.laterals.0.bias"])
    return f"{there} wide there, {network.config.decoder.width} here"


def _is_class_layer(key: str) -> bool:
    return key.split(".")[-2] == "class_logits"
