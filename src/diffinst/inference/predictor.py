"""The public model: `DiffusionInst` loads weights and turns images into instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.acceleration.compile import compile_parts
from diffinst.acceleration.feed import fed
from diffinst.acceleration.optimize import Precision, optimized, resolved
from diffinst.acceleration.record import GpuRecorder
from diffinst.config import Config, PreprocessConfig
from diffinst.inference.advice import advice
from diffinst.inference.denoising import Denoiser
from diffinst.inference.postprocess import draw, select
from diffinst.inference.trace import TracePoint, trace
from diffinst.io.images import ImageSource, read_image
from diffinst.io.out_of_memory import explained
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import SIZE_DIVISOR, fit_size, pad_batch, resize
from diffinst.results.instances import Instances
from diffinst.structures import ImageBatch
from diffinst.weights import store

MAX_BATCH = {"cuda": 32}  # images that go through the network at once


class DiffusionInst:
    """Instance segmentation by denoising boxes and filters.

    Make one with `from_pretrained` or `from_preset`. Steps and proposals are free at inference: any
    number works with the same weights.

    Attributes:
        network: The torch module.
        config: Everything saved with the weights; defaults of `predict` come from it.
        precision: What `optimize` chose, fp32 or bf16; None: the weights as they were saved.
    """

    def __init__(
        self, network: DiffusionInstNetwork, config: Config, precision: Precision | None = None
    ) -> None:
        self.network = network
        self.config = config
        self.precision = precision
        self._denoiser = Denoiser(network)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | torch.device = "cpu"
    ) -> DiffusionInst:
        """Load weights.

        Args:
            source: Name of shipped weights, a folder, its model.safetensors, or a hub id.
            device: Where to run.

        Raises:
            CheckpointError: Nothing there or not usable; says why.

        Example:
            >>> model = DiffusionInst.from_pretrained("nano-nuclei")  # doctest: +SKIP
        """
        network, config = store.load(source)
        return cls(network.to(device), config)

    @classmethod
    def from_preset(
        cls, name: str, *, seed: int = 0, device: str | torch.device = "cpu"
    ) -> DiffusionInst:
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
        """Write config.json and model.safetensors into a folder, atomically; returns the folder.

        Raises:
            ValueError: The model comes from `optimize`.
        """
        if self.precision is not None:
            raise ValueError("an optimized model only predicts; save the one it was made from")
        return store.save(self.network, self.config, folder, dtype=dtype)

    def optimize(
        self, precision: Precision = "auto", *, compile_network: bool = False
    ) -> DiffusionInst:
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
            >>> model = DiffusionInst.from_preset("tiny").optimize("fp32")
            >>> model.precision
            'fp32'
        """
        chosen = resolved(precision, self.device)
        made = DiffusionInst(optimized(self.network, chosen), self.config, chosen)
        if compile_network:
            compile_parts(made.network)
            if self.device.type == "cuda":
                made._denoiser = Denoiser(made.network, GpuRecorder())
        return made

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.network.image_mean.device

    def to(self, device: str | torch.device) -> DiffusionInst:
        """Move the weights; returns self. What was recorded of a compiled model stays behind."""
        self.network.to(device)
        record = self._denoiser.record if self.device.type == "cuda" else None
        self._denoiser = Denoiser(self.network, record)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per label."""
        return self.config.model.names

    @overload
    def predict(
        self,
        images: ImageSource,
        *,
        steps: int | None = None,
        proposals: int | None = None,
        threshold: float | None = None,
        max_detections: int | None = None,
        seed: int = 0,
    ) -> Instances: ...

    @overload
    def predict(
        self,
        images: list[ImageSource] | tuple[ImageSource, ...],
        *,
        steps: int | None = None,
        proposals: int | None = None,
        threshold: float | None = None,
        max_detections: int | None = None,
        seed: int = 0,
    ) -> list[Instances]: ...

    def predict(
        self,
        images: ImageSource | list[ImageSource] | tuple[ImageSource, ...],
        *,
        steps: int | None = None,
        proposals: int | None = None,
        threshold: float | None = None,
        max_detections: int | None = None,
        seed: int = 0,
    ) -> Instances | list[Instances]:
        """Segment an image, or a list of them.

        Every image starts from the same noise, given by `seed`, so a list gives what its images
        give one by one. Only images of one padded size share a batch.

        Args:
            images: Path, PIL image, array (H, W, 3) or (H, W), tensor (3, H, W); or a list of
                these, sizes may differ.
            steps: Denoising steps, 1 to T.
            proposals: Boxes to start from.
            threshold: Only instances with at least this score.
            max_detections: At most so many, best first.
            seed: Of the noise.

        Returns:
            `Instances` in the pixels of the original image, or a list of them.

        Raises:
            ImageReadError: An image cannot be read; names it.
            ConfigError: A value out of range; names it.
            MemoryError: Says what to lower, and by how much.
        """
        config = self._configured(steps, proposals, threshold, max_detections)
        if not isinstance(images, (list, tuple)):
            return self._predict_all([read_image(images)], config, seed)[0]
        return self._predict_all([read_image(image) for image in images], config, seed)

    def trace(
        self,
        image: ImageSource,
        *,
        steps: int | None = None,
        proposals: int | None = None,
        seed: int = 0,
    ) -> list[TracePoint]:
        """Everything between noise and result: what enters each step, and each stage's output.

        Args:
            image: As in `predict`.
            steps: Denoising steps.
            proposals: Boxes to start from.
            seed: Of the noise.

        Returns:
            For each step: stage -1 (boxes only), then stages 0, 1, ... with masks; not filtered by
            score, NMS applied.
        """
        config = self._configured(steps, proposals, None, None)
        pixels = read_image(image)
        batch, output = self.prepare([pixels], config.preprocess), pixels.shape[:2]
        self.network.eval()
        with torch.inference_mode():
            noise = self._runner().noise([seed], config.sampler)
            return trace(self.network, batch, noise, (output[0], output[1]), config)

    def prepare(
        self, images: Sequence[NDArray[np.uint8]], config: PreprocessConfig | None = None
    ) -> ImageBatch:
        """RGB uint8 images (H, W, 3) to one padded batch on the model's device."""
        (tensors,) = fed([images], self.device)
        return _batch(tensors, config or self.config.preprocess)

    def _runner(self) -> Denoiser:
        """Of the present network: the attribute may be set."""
        if self._denoiser.network is not self.network:
            self._denoiser = Denoiser(self.network)
        return self._denoiser

    def _configured(
        self,
        steps: int | None,
        proposals: int | None,
        threshold: float | None,
        max_detections: int | None,
    ) -> Config:
        parts: dict[str, dict[str, object]] = {
            "sampler": {"steps": steps, "proposals": proposals},
            "postprocess": {"threshold": threshold, "max_detections": max_detections},
        }
        for part, fields in parts.items():
            parts[part] = {key: value for key, value in fields.items() if value is not None}
        return self.config.updated(**parts) if any(parts.values()) else self.config

    def _predict_all(
        self, images: Sequence[NDArray[np.uint8]], config: Config, seed: int
    ) -> list[Instances]:
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            size = _input_size((image.shape[0], image.shape[1]), config.preprocess)
            padded = tuple(-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in size)
            groups.setdefault((padded[0], padded[1]), []).append(i)
        most = MAX_BATCH.get(self.device.type, 8)
        chunks = [
            (size, members[first : first + most])
            for size, members in groups.items()
            for first in range(0, len(members), most)
        ]
        exact = self.network.dtype == torch.float32
        results: dict[int, Instances] = {}
        fed_chunks = fed([[images[i] for i in chunk] for _, chunk in chunks], self.device)
        for size, chunk in chunks:
            with explained("predicting", partial(advice, size, len(chunk), config, exact=exact)):
                own, tensors = [images[i] for i in chunk], next(fed_chunks)
                found = self._predict_batch(own, tensors, config, seed)
            results.update(zip(chunk, found, strict=True))
        return [results[i] for i in range(len(images))]

    def _predict_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        tensors: Sequence[Tensor],
        config: Config,
        seed: int,
    ) -> list[Instances]:
        self.network.eval()
        with torch.inference_mode():
            batch = _batch(tensors, config.preprocess)
            pool, features = self._runner()(batch, [seed] * len(batch), config.sampler)
            found = []
            for i, image in enumerate(images):
                detections = select(pool, i, config.sampler.nms_iou)
                output = (image.shape[0], image.shape[1])
                instances = draw(detections, features, i, output, self.network, config.postprocess)
                found.append(replace(instances, image=image))
        return found


def _batch(tensors: Sequence[Tensor], config: PreprocessConfig) -> ImageBatch:
    """(3, H, W) uint8 images resized and padded, where they lie."""
    sizes = [_input_size((int(t.shape[1]), int(t.shape[2])), config) for t in tensors]
    return pad_batch([resize(t, size) for t, size in zip(tensors, sizes, strict=True)])


def _input_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
    return fit_size(
        size, short_side=config.short_side, zoom=config.zoom, long_side=config.long_side
    )
