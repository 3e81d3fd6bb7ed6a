"""Weights with their configuration: loaded, saved, moved, made faster."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from typing_extensions import Self

from diffinst.acceleration.compile import compile_parts
from diffinst.acceleration.optimize import Precision, optimized, resolved
from diffinst.acceleration.record import GpuRecorder, Recorded
from diffinst.config import Config, Reading
from diffinst.inference.front import Front
from diffinst.inference.launch import Launch, direct
from diffinst.inference.runner import Runner
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import hub, store
from diffinst.weights.card import Card


class Pretrained:
    """What a model is before anything is asked of it; `DiffusionInst` names its attributes."""

    def __init__(
        self,
        network: DiffusionInstNetwork,
        config: Config,
        precision: Precision | None = None,
        *,
        launch: Launch = direct,
    ) -> None:
        self.network = network
        self.config = config
        self.precision = precision
        self.card, self.front = Card(), Front()
        self._last = Runner(network, config, launch)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load weights.

        Args:
            source: Name of shipped weights, a folder, its model.safetensors, or a hub id.
            device: Where to run.

        Raises:
            CheckpointError: Nothing there or not usable; says why.

        Example:
            >>> from diffinst import DiffusionInst
            >>> model = DiffusionInst.from_pretrained("nano-nuclei")  # doctest: +SKIP
        """
        folder = store.locate(source)
        network, config = store.load(folder)
        model = cls(network.to(device), config)
        model.card, model.front = Card.read(folder), Front.read(folder)
        return model

    @classmethod
    def from_preset(cls, name: str, *, seed: int = 0, device: str | torch.device = "cpu") -> Self:
        """The architecture of a preset with fresh weights; downloads nothing.

        Args:
            name: See `diffinst.config.preset_names`.
            seed: Of the random initialisation; the global generator is left as it was.
            device: Where to run.

        Raises:
            ConfigError: No such preset.
        """
        config = Config.from_preset(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = DiffusionInstNetwork(config.model)
        return cls(network.eval().to(device), config)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json, model.safetensors and a README.md; returns the folder.

        Each is written whole or not at all; a README.md that a person wrote stays as it is.

        Raises:
            ValueError: The model comes from `optimize`.
        """
        if self.precision is not None:
            raise ValueError("an optimized model only predicts; save the one it was made from")
        return store.save(self.network, self.config, folder, dtype=dtype, card=self.card)

    def push_to_hub(
        self,
        hub_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a diffinst model",
        dtype: torch.dtype = torch.float32,
    ) -> str:
        """Save the model into a repository of Hugging Face's hub; returns its address.

        Args:
            hub_id: `owner/name`; made if needed. `from_pretrained` takes the same id.
            private: Of a new repository; None: as the owner's settings say.
            token: Of the hub; None: the one of `hf auth login`, or HF_TOKEN.
            message: Of the commit.
            dtype: Of the stored weights.

        Raises:
            HubError: Not logged in, not allowed, or no network; says which.
            ValueError: The model comes from `optimize`.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / hub_id.rsplit("/", 1)[-1]
            return hub.push(
                self.save_pretrained(folder, dtype),
                hub_id,
                private=private,
                token=token,
                message=message,
            )

    def optimize(self, precision: Precision = "auto", *, compile_network: bool = False) -> Self:
        """A copy that predicts faster; it cannot be trained or saved. This model stays as it is.

        Args:
            precision: `fp32` gives the same results to rounding; `bf16` nearly the
                same; `auto` is bf16 where this machine is faster with it.
            compile_network: Compile it at the first prediction of each size, which takes up to a
                minute: for many images of a few sizes. On a GPU all steps are recorded, too, and
                replayed at once. Where that is not possible a warning says why, and it runs as it
                is.

        Raises:
            ValueError: No such precision.

        Example:
            >>> from diffinst import DiffusionInst
            >>> model = DiffusionInst.from_preset("tiny").optimize("fp32")
            >>> model.precision
            'fp32'
        """
        chosen = resolved(precision, self.device)
        network = optimized(self.network, chosen)
        launch: Launch = direct
        if compile_network:
            compile_parts(network)
            launch = _recorded(self.device)
        copy = type(self)(network, self.config, chosen, launch=launch)
        copy.front = self.front
        return copy

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.network.image_mean.device

    def to(self, device: str | torch.device) -> Self:
        """Move the weights; returns self. What was recorded of a compiled model stays behind."""
        recording = self._last.launch is not direct
        self.network.to(device)
        launch = _recorded(self.device) if recording else direct
        self._last = Runner(self.network, self.config, launch)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per label."""
        return self.config.model.names

    def __repr__(self) -> str:
        names, model = self.class_names, self.config.model
        classes = ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
        size = sum(p.numel() for p in self.network.parameters()) / 1e6
        kind = f", {self.precision}" if self.precision else ""
        return (
            f"{type(self).__name__}({model.backbone.name}, classes: {classes}; "
            f"{size:.1f} M parameters{kind}, on {self.device})"
        )

    def _runner(self) -> Runner:
        """Of the present network and configuration: both attributes may be set."""
        last = self._last
        if last.network is not self.network:
            self._last = Runner(self.network, self.config)
        elif last.config is not self.config:
            self._last = Runner(self.network, self.config, last.launch)
        self._last.budget.front = self.front
        return self._last

    def _reading(self, asked: Reading | None = None) -> Reading:
        """How images are read: as asked, and where nothing is asked as `config.preprocess` says."""
        own = self.config.preprocess
        return (Reading() if asked is None else asked).over(own)


def _recorded(device: torch.device) -> Launch:
    return Recorded(GpuRecorder()) if device.type == "cuda" else direct
