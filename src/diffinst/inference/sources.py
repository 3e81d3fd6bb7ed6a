"""What may be handed over as images: one, or a folder, a pattern, a list, any iterable of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from diffinst.inference.image import EncodedImage
from diffinst.io.images import ImageReadError, list_images
from diffinst.io.listing import is_pattern, named


def files_of(source: object) -> list[Path] | None:
    """The image files that a folder or a pattern stands for; None where it is neither.

    Raises:
        ImageReadError: An empty name, a folder without images, or a pattern that no file matches.
    """
    if not isinstance(source, str | Path):
        return None
    path = named(source)
    several = path.is_dir() or (is_pattern(path) and not path.exists())
    return list_images([path]) if several else None


def is_one(source: object) -> bool:
    """Whether it is a single image, not an iterable of images; wrong types count as one."""
    one = (str, Path, Image.Image, np.ndarray, Tensor, EncodedImage)
    wrong = (bytes, bytearray, io.IOBase, Mapping)
    return isinstance(source, one + wrong) or not isinstance(source, Iterable)


def refuse_one(frames: object) -> None:
    """Say that frames are several images; an array of them has one axis more than an image.

    Raises:
        ImageReadError: It is a single image, or nothing that holds any.
    """
    match frames:
        case np.ndarray():
            one = frames.ndim < 3 or (frames.ndim == 3 and frames.shape[2] in (1, 3, 4))
        case Tensor():
            one = frames.ndim < 4
        case _:
            one = is_one(frames)
    if one:
        what = f"{type(frames).__name__} {getattr(frames, 'shape', '')}".rstrip()
        raise ImageReadError(
            f"frames: {what} is not several images; give a video, a folder, or images one by one, "
            "such as a list of them"
        )


def path_of(source: object) -> Path | None:
    """The file that a source is, absolute, so that a later change of folder does not matter."""
    return Path(source).absolute() if isinstance(source, str | Path) else None
