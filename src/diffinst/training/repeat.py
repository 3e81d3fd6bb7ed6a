"""How often images are shown, so that rare classes are seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffinst.config import Reading
from diffinst.datasets.split import Split, labels_by_image
from diffinst.io.images import read_image
from diffinst.training.colour import in_colour


def repeat_factors(split: Split, threshold: float) -> npt.NDArray[np.float64]:
    """How many times as often as usual each image is to be shown.

    LVIS paper, Appendix B: f_c is the fraction of images that hold class c,
    r_c = max(1, sqrt(threshold / f_c)) its factor, and r_i = max over the classes of image i the
    factor of that image (1 without objects).

    Args:
        split: Annotated images.
        threshold: Fraction below which a class is rare; the paper's is 0.001. 0: every factor is 1.

    Returns:
        (n,), at least 1 each.

    Raises:
        ValueError: The threshold is no fraction of the images.

    Example:
        >>> from diffinst.datasets.load import load_split
        >>> from diffinst.datasets.synthetic import make_shapes
        >>> repeat_factors(load_split(make_shapes("shapes"), "train"), 0.001).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, allowed is 0 to 1, a fraction of the images")
    images, labels = labels_by_image(split)
    fraction = np.bincount(labels, minlength=len(split.classes)) / max(len(split.records), 1)
    present = fraction > 0
    factors = np.ones(len(fraction))
    factors[present] = np.maximum(1, np.sqrt(threshold / fraction[present]))
    of_images = np.ones(len(split.records))
    np.maximum.at(of_images, images, factors[labels])
    return of_images


def colour_factors(
    split: Split, factor: float, reading: Reading | None = None
) -> npt.NDArray[np.float64]:
    """(n,) `factor` for images in colour, 1 for grey ones; every image is read once.

    Args:
        split: The images.
        factor: How many times as often as grey ones those in colour are to be shown.
        reading: How images are read.
    """
    colours = [in_colour(read_image(record.path, reading)) for record in split.records]
    return np.where(colours, factor, 1.0)
