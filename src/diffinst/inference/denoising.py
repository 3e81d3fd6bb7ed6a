"""From a batch of images to scored candidates, with or without a recording of the work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from diffinst.acceleration.record import Record, Tapes
from diffinst.config import SamplerConfig
from diffinst.inference.sampler import Noise, Pool, Sampler, pool_steps
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Features, ImageBatch


class Denoiser:
    """Encodes images and runs all steps.

    Args:
        network: In eval mode.
        record: How to record the work of a shape; None: it is started anew each time.
    """

    def __init__(self, network: DiffusionInstNetwork, record: Record | None = None) -> None:
        self.network = network
        self.record = record
        self.tapes = None if record is None else Tapes(record)
        self._noise: tuple[object, Noise] | None = None

    def __call__(
        self, batch: ImageBatch, seeds: Sequence[int], config: SamplerConfig
    ) -> tuple[Pool, Features]:
        """Candidates of all steps, and the features their filters are applied to.

        Args:
            batch: On the network's device.
            seeds: Of each image's noise.
            config: Steps, proposals, renewal.

        Returns:
            The pool, and features that may lack the pyramid.
        """
        noise = self.noise(seeds, config)
        tapes = self.tapes
        if tapes is not None and config.early_stop is None:  # stopping is a question
            try:
                return self._replayed(tapes, batch, noise, config)
            except Exception as error:  # of the driver, a compiler or a library, of many kinds
                tapes.clear()
                if not _is_of_memory(error):  # there is no use in another try
                    first = [*str(error).strip().splitlines(), "no reason given"][0]
                    warnings.warn(f"predictions are not recorded: {first}", stacklevel=2)
                    self.tapes = None
        encoded = self.network.encode(batch)
        pool = pool_steps(list(Sampler(self.network, config).run(encoded, noise)))
        return pool, encoded.features

    def noise(self, seeds: Sequence[int], config: SamplerConfig) -> Noise:
        """The draws of some seeds on the network's device; those of the last call are kept."""
        device = self.network.image_mean.device
        key = (tuple(seeds), config.model_dump_json(), device)
        kept = self._noise  # another thread may put its own there meanwhile
        if kept is not None and kept[0] == key:
            return kept[1]
        drawn = Noise.draw(seeds, config, self.network.config.diffusion).to(device)
        self._noise = key, drawn
        return drawn

    def _replayed(
        self, tapes: Tapes, batch: ImageBatch, noise: Noise, config: SamplerConfig
    ) -> tuple[Pool, Features]:
        sampler = Sampler(self.network, config)
        padded = (batch.pixels.shape[-2], batch.pixels.shape[-1])

        def run(pixels: Tensor, scale: Tensor, *draws: Tensor) -> tuple[Tensor, ...]:
            encoded = self.network.encode_normalized(pixels, (padded,) * len(pixels), scale)
            pool = pool_steps(list(sampler.run(encoded, Noise(*draws))))
            return (
                pool.boxes,
                pool.scores,
                pool.labels,
                pool.filters,
                encoded.features.mask_features,
            )

        inputs = (
            self.network.normalized(batch),
            batch.scale(),
            noise.start,
            noise.renoise,
            noise.renewal,
        )
        *candidates, mask_features = tapes.run(config.model_dump_json(), run, inputs)
        return Pool(*candidates), Features((), mask_features, batch.sizes)


def _is_of_memory(error: Exception) -> bool:
    """Libraries have errors of their own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
