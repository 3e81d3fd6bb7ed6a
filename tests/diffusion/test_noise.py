"""Does an image's noise follow from its own seed, and does it cover the image?"""

from __future__ import annotations

import pytest
import torch

from diffinst.config import DiffusionConfig
from diffinst.diffusion.noise import Noise

N = 12


@pytest.mark.parametrize("kind", ["normal", "sobol"])
def test_noise_of_an_image_depends_on_its_seed_alone(kind: str) -> None:
    diffusion = DiffusionConfig.model_validate({"noise": kind})
    batch = Noise.draw([7, 8], 3, N, diffusion)
    for i, seed in enumerate([7, 8]):
        alone = Noise.draw([seed], 3, N, diffusion)
        assert torch.equal(batch.start[i], alone.start[0])
        assert torch.equal(batch.renoise[:, i], alone.renoise[:, 0])
        assert torch.equal(batch.renewal[:, i], alone.renewal[:, 0])
    assert not torch.equal(batch.start[0], batch.start[1])


def test_sobol_noise_covers_the_image_more_evenly() -> None:
    # 64 Sobol points are a (0, 6, 2)-net: one in each of 8 x 8 cells. Of 64 uniform ones about a
    # third of the cells would stay empty, and normal ones crowd in the middle.
    cells = {}
    for kind in ("normal", "sobol"):
        diffusion = DiffusionConfig.model_validate({"noise": kind})
        centres = Noise.draw([3], 1, 64, diffusion).start[0, :, :2]
        fraction = (centres.clamp(-2, 1.9999) / 2 + 1) / 2
        cells[kind] = len({(int(x * 8), int(y * 8)) for x, y in fraction.tolist()})
    assert cells["sobol"] == 64
    assert cells["normal"] < 50
