"""Objects that a person kept or corrected stay as they are; what else is found is added to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.results.convert import OPTIONAL
from diffinst.results.crops import rle_iou
from diffinst.results.instances import Instances

KNOWN = 0.5  # of a found mask inside a given one: the object is known


def check_given(given: Instances, size: tuple[int, int], names: tuple[str, ...]) -> None:
    """Refuse objects of another image or of other classes, and what is no result.

    Raises:
        ValueError: Says what is given, and what the image and the model have.
    """
    if not isinstance(given, Instances):
        raise ValueError(
            f"given: a {type(given).__name__}; give Instances, as `predict` returns them, several "
            "joined by Instances.cat; Instances.from_coco makes them of COCO results"
        )
    if given.image_size != size:
        raise ValueError(
            f"given: objects on an image of {given.image_size} (height, width), but this one is "
            f"{size}; give what was found on this image"
        )
    if given.class_names != names:
        raise ValueError(
            f"given: objects of classes {', '.join(given.class_names)}, but the model has "
            f"{', '.join(names)}; give results of this model"
        )


def around(given: Instances, found: Instances) -> Instances:
    """The given objects, and after them what was found elsewhere.

    An instance counts as known where half of its mask lies inside a given one, whatever the
    classes. What contains a given object and is more than twice as large is another object: a tie
    is no reason to omit who wears it.

    Args:
        given: Stays as it is; optional fields are dropped.
        found: Of the same image and classes.
    """
    bare = dict.fromkeys(OPTIONAL)
    kept = replace(given.to("cpu"), **bare)  # type: ignore[arg-type]
    found = replace(found.to("cpu"), **bare)  # type: ignore[arg-type]
    both = Instances.cat([kept, elsewhere(kept, found)])
    return replace(both, meta=found.meta)


def elsewhere(given: Instances, found: Instances) -> Instances:
    """What was found and is not known, as in `around`, with all its fields."""
    return found[torch.from_numpy(~(inside_of(given, found) >= KNOWN).any(0))]


def inside_of(given: Instances, found: Instances) -> NDArray[np.float64]:
    """(n, m) the fraction of each found mask that lies inside each given one."""
    shared: NDArray[np.float64] = rle_iou(
        found.mask_crops.to_rle(), given.mask_crops.to_rle(), inside=True
    ).T
    return shared
