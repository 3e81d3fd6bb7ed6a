"""What does diffinst do? Segment real images and show the denoising, step by step.

Run by `make demo`; needs nothing but the package: the images come with scikit-image, the weights
with diffinst. Writes overlays, masks, COCO results and the film strip into runs/demo.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from diffinst import DiffusionInst
from diffinst.inference.film import denoising_strip
from diffinst.inference.folder import predict_folder

OUT = Path("runs/demo")
STEPS = 4
THRESHOLD = 0.65  # the model's own is 0.6; coins and galaxies are no nuclei
STRIP_THRESHOLD = 0.7


def write_images(folder: Path) -> dict[str, Path]:
    """Real images of many small objects; `nano-nuclei` knows objects of about 10 to 60 pixels."""
    coins = data.coins()
    images = {
        "coins": Image.fromarray(coins).resize((coins.shape[1] // 2, coins.shape[0] // 2)),
        "galaxies": Image.fromarray(data.hubble_deep_field()[:400, :400]),
        "tissue": Image.fromarray(np.asarray(data.immunohistochemistry())),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in images}
    for name, image in images.items():
        image.save(paths[name])
    return paths


def main() -> None:
    """Segment, draw, and say where everything is."""
    begin = time.perf_counter()
    model = DiffusionInst.from_pretrained("nano-nuclei")
    images = write_images(OUT / "images")
    summary = predict_folder(
        model,
        list(images.values()),
        OUT,
        steps=STEPS,
        threshold=THRESHOLD,
        max_detections=500,
    )
    by_ddim = model.config.updated(sampler={"kind": "ddim"})  # the paper's, which moves its boxes
    denoising_strip(
        DiffusionInst(model.network, by_ddim),
        images["coins"],
        OUT / "film_strip.png",
        steps=2,
        proposals=100,
        threshold=STRIP_THRESHOLD,
    )
    print(
        f"{summary.instances} objects on {summary.images} images, "
        f"{summary.seconds / max(summary.images, 1):.2f} s an image at {STEPS} steps; "
        f"{time.perf_counter() - begin:.0f} s in all\n"
        f"overlays           {OUT / 'overlays'}\n"
        f"masks              {OUT / 'masks'}\n"
        f"COCO results       {OUT / 'results.json'}\n"
        f"denoising, Fig. 1  {OUT / 'film_strip.png'}"
    )


if __name__ == "__main__":
    main()
