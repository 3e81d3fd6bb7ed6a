"""Turns a path, PIL image, array or tensor into RGB uint8 (height, width, 3)."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from diffinst.config import Reading
from diffinst.io.depth import STRETCHED, Pixels, Values, as_uint8
from diffinst.io.foreign import what_it_is
from diffinst.io.image_error import ImageReadError, ImageTooLarge
from diffinst.io.listing import IMAGE_SUFFIXES, list_images, missing, named
from diffinst.io.pillow import DECODING_ERRORS, from_pil, limited, undecodable
from diffinst.io.planes import RGBA, first_page, which_channels
from diffinst.io.tiff import beyond_pillow, is_tiff, read_tiff

if TYPE_CHECKING:  # whoever has a tensor has loaded torch; whoever reads files need not wait for it
    from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageReadError",
    "ImageSource",
    "ImageTooLarge",
    "Pixels",
    "list_images",
    "read",
    "read_image",
]

ImageSource: TypeAlias = Union[str, Path, Image.Image, npt.NDArray[np.generic], "Tensor"]

MAX_PIXELS = 500_000_000
"""Larger images are refused (1.5 GB as RGB). Assign to it to allow more; Pillow's own limit,
`PIL.Image.MAX_IMAGE_PIXELS`, is raised to it while an image is decoded and put back afterwards."""


def read_image(source: ImageSource, reading: Reading | None = None) -> Pixels:
    """Read one image as RGB, always into memory of its own.

    Files and PIL images are turned upright by their EXIF orientation; colour profiles are ignored.
    Whatever is transparent is laid on white. Values of more than 8 bits, and floats beyond [0, 1],
    become 8 bits by the image's own range or by that of their type, as `reading` says. Of several
    pages the first counts, of several channels grey or RGB, unless `reading` says otherwise.

    Args:
        source: a file; a PIL image of any mode; an array (height, width), (height, width, 1),
            (height, width, 3) RGB or (height, width, 4) RGBA; or a tensor (1, height, width) or
            (3, height, width) RGB on any device. Arrays and tensors are uint8, integers of 16 bits
            or more, or float; with a channel chosen they have any number of them.
        reading: page, channel, projection and stretch; None: the defaults.

    Returns:
        (height, width, 3) RGB uint8, C-contiguous.

    Raises:
        ImageReadError: the file is missing, a folder, empty, damaged, no image, of a known format
            that is not read, or larger than `MAX_PIXELS`; it has no such page or channel, or
            channels that are no colours; or shape, type or values are not those above.
        ImageTooLarge: it does not fit in memory.

    Example:
        >>> read_image(np.full((4, 6), 65535, np.uint16), Reading(stretch="full"))[0, 0]
        array([255, 255, 255], dtype=uint8)
    """
    return read(source, reading)[0]


def read(source: ImageSource, reading: Reading | None = None) -> tuple[Pixels, tuple[str, ...]]:
    """Read one image as `read_image` does, with what is to be told of it, a line each.

    The note that values were stretched is the same for all images.
    """
    reading = Reading() if reading is None else reading
    try:
        match source:
            case str() | Path():
                return _from_file(named(source), reading)
            case Image.Image():
                name = f"PIL image {getattr(source, 'filename', '')}".rstrip()
                values, _ = from_pil(source, name, reading, MAX_PIXELS)
                return _finished(values, name, reading, [])
            case np.ndarray():
                first_page(reading, 1, "array")
                return _finished(_channels_last(source, reading), "array", reading, [])
            case _ if _is_tensor(source):
                first_page(reading, 1, "tensor")
                return _finished(_from_tensor(source, reading), "tensor", reading, [])
    except MemoryError as error:
        whose = source if isinstance(source, str | Path) else "image"
        raise ImageTooLarge(
            f"{whose}: does not fit in memory; cut it into tiles, or use a computer with more"
        ) from error
    raise ImageReadError(
        f"an image cannot be read from {type(source).__name__}; give a path, a PIL image, a numpy "
        "array or a torch tensor (several images: one at a time)"
    )


def _from_file(path: Path, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageReadError(missing(path)) from error
    except (OSError, ValueError) as error:  # no permission, name too long, NUL in the name, a loop
        reason = getattr(error, "strerror", None) or error
        raise ImageReadError(f"{path}: cannot be opened ({reason}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        what = what_it_is(path) or "is a folder; give one image file"
        raise ImageReadError(f"{path}: {what}")
    if not stat.S_ISREG(status.st_mode):
        raise ImageReadError(f"{path}: is a device or pipe; save the image to a file first")
    if status.st_size == 0:
        raise ImageReadError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        with limited(MAX_PIXELS):
            return _decoded(path, reading)
    except PermissionError as error:
        raise ImageReadError(f"{path}: may not be read; check its permissions") from error
    except ImageReadError as error:
        known = what_it_is(path)
        if known is None:
            raise
        raise ImageReadError(f"{path}: {known}") from error


def _decoded(path: Path, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    try:
        image = Image.open(path)
    except PermissionError:
        raise
    except UnidentifiedImageError as error:
        if is_tiff(path):
            return _from_tiff(path, reading)
        raise ImageReadError(
            f"{path}: is not an image in a format that Pillow knows, or its first bytes are "
            "damaged; convert it to PNG or JPEG, or download it again"
        ) from error
    except DECODING_ERRORS as error:
        raise ImageReadError(undecodable(str(path), error, MAX_PIXELS)) from error
    with image:
        try:
            beyond = image.format == "TIFF" and beyond_pillow(image)
        except DECODING_ERRORS as error:
            raise ImageReadError(undecodable(str(path), error, MAX_PIXELS)) from error
        if beyond:
            return _from_tiff(path, reading)
        values, notes = from_pil(image, str(path), reading, MAX_PIXELS, file=path)
    return _finished(values, str(path), reading, notes)


def _from_tiff(path: Path, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    try:
        values, notes = read_tiff(path, reading, MAX_PIXELS)
    except (ImageReadError, MemoryError):
        raise
    except Exception as error:  # of tifffile and its decoders, of many kinds
        raise ImageReadError(undecodable(str(path), error, MAX_PIXELS)) from error
    rest = Reading(stretch=reading.stretch)  # page and channel are chosen
    return _finished(values, str(path), rest, notes)


def _channels_last(array: npt.NDArray[np.generic], reading: Reading) -> Values:
    values = array[..., None] if array.ndim == 2 else array
    if values.ndim != 3 or (values.shape[2] not in (1, 3, RGBA) and reading.channel is None):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; if channels come first, use array.transpose(1, 2, 0)" if first else ""
        several = "; of more channels choose one: Reading(channel=0)" if values.ndim == 3 else ""
        raise ImageReadError(
            f"array: its shape is {array.shape}; allowed are (height, width) and (height, width, "
            f"1 or 3 or 4), one image at a time{hint or several}"
        )
    return values


def _finished(
    values: Values, name: str, reading: Reading, notes: list[str]
) -> tuple[Pixels, tuple[str, ...]]:
    """RGB uint8 of (height, width, channels) of any depth."""
    if values.size == 0:
        raise ImageReadError(f"{name}: its shape is {values.shape}, without a pixel; leave it out")
    height, width, count = values.shape
    layout = f"shape {height}x{width}x{count}"
    if reading.channel is not None:
        (kept,) = which_channels(count, reading.channel, name, layout)
        values = values[..., kept : kept + 1]
    eight, stretched = as_uint8(values, name, reading.stretch)
    if eight.shape[2] == RGBA:
        eight = on_white(eight)
    rgb = np.array(np.broadcast_to(eight, (height, width, 3)), order="C")  # a copy
    return rgb, (*notes, *([STRETCHED] if stretched else []))


def on_white(rgba: Pixels) -> Pixels:
    """RGBA laid on white, RGB."""
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed: npt.NDArray[np.uint32] = rgba[..., :3] * alpha + 255 * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)


def _is_tensor(source: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_tensor(tensor: Tensor, reading: Reading) -> Values:
    import torch

    shape = tuple(tensor.shape)
    if len(shape) != 3 or (shape[0] not in (1, 3) and reading.channel is None):
        last = len(shape) == 3 and shape[2] in (1, 3)
        hint = "; if channels come last, use tensor.permute(2, 0, 1)" if last else ""
        several = "; of more channels choose one: Reading(channel=0)" if len(shape) == 3 else ""
        raise ImageReadError(
            f"tensor: its shape is {shape}; allowed is (1 or 3, height, width), one image"
            f"{hint or several}"
        )
    values = tensor.detach().cpu().permute(1, 2, 0)
    if values.is_floating_point() and values.dtype != torch.float64:
        values = values.float()  # numpy knows no bfloat16
    array: Values = values.numpy()
    return array
