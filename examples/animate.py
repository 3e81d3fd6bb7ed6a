"""How does a denoising look in motion? Draws the animation of the README.

`python examples/animate.py docs/images/denoising.webp`: coins (they come with scikit-image), by
weights that were trained on cell nuclei. The paper's sampler, whose boxes move from step to step.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from PIL import Image
from skimage import data

from diffinst import DiffusionInst
from diffinst.inference.film import strip_frames
from diffinst.io.atomic import atomic_path
from diffinst.results.render.film import Frame, film_tiles
from diffinst.results.render.sheet import contact_sheet

STEPS, PROPOSALS, THRESHOLD = 2, 100, 0.7
WIDTH = 480  # pixels of the animation
HOLD, BLEND, END = (
    700,
    60,
    2500,
)  # milliseconds: of a moment, of each image between two, of the last
BETWEEN = (0.25, 0.5, 0.75)  # how far an image between two moments has gone over


def moments(model: DiffusionInst, image: Image.Image) -> list[Image.Image]:
    """The noise, each decoder stage of each step, the result; with captions."""
    encoded = model.encode(image)
    passes = list(encoded.trace(steps=STEPS, proposals=PROPOSALS, threshold=THRESHOLD, seed=0))
    frames = strip_frames([point for points, _ in passes for point in points], THRESHOLD)
    frames.append(Frame("result", passes[-1][1]))
    tiles = film_tiles(encoded.image, frames, WIDTH)
    return [contact_sheet([tile], columns=1, tile_width=WIDTH) for tile in tiles]


def main(path: Path) -> None:
    """Draw the moments, let each go over into the next, and save."""
    model = DiffusionInst.from_pretrained("nano-nuclei")
    model = DiffusionInst(model.network, model.config.updated(sampler={"kind": "ddim"}))
    coins = Image.fromarray(data.coins())
    shown = moments(model, coins.resize((coins.width // 2, coins.height // 2)))
    images, durations = [shown[0]], [2 * HOLD]
    for before, after in itertools.pairwise(shown):
        images += [*(Image.blend(before, after, part) for part in BETWEEN), after]
        durations += [BLEND] * len(BETWEEN) + [HOLD]
    durations[-1] = END
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        images[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            quality=70,
            method=6,
        )
    print(f"{path}: {len(images)} images, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/denoising.webp"))
