"""Grey images stay grey; images in colour get another dye."""

from __future__ import annotations

import numpy as np
import torch

from diffinst.training.colour import in_colour, jitter_stain

GREY = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
PINK = np.full((16, 16, 3), (220, 150, 190), np.uint8)


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def test_what_is_in_colour() -> None:
    assert in_colour(PINK) and not in_colour(GREY)
    noisy = GREY.astype(np.int16)
    noisy[..., 0] += 1  # as JPEG leaves them
    assert not in_colour(noisy.clip(0, 255).astype(np.uint8))


def test_stains_change_images_in_colour_alone() -> None:
    rng = np.random.default_rng(0)
    assert torch.equal(jitter_stain(chw(GREY), 0.3, rng), chw(GREY))
    assert torch.equal(jitter_stain(chw(PINK), 0.0, rng), chw(PINK))
    dyed = jitter_stain(chw(PINK), 0.3, rng)
    assert dyed.dtype == torch.uint8 and not torch.equal(dyed, chw(PINK))
    assert (dyed.float() - chw(PINK).float()).abs().max() < 80


def test_white_stays_white_and_the_draws_follow_the_generator() -> None:
    image = PINK.copy()
    image[:4] = 255
    dyed, again = (jitter_stain(chw(image), 0.3, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(dyed, again)
    assert (dyed[:, :4] == 255).all()  # no dye, no density: log 1 = 0
