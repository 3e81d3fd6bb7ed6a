"""Turns a path, PIL image, array or tensor into RGB uint8 (height, width, 3); lists images."""

from __future__ import annotations

import os
import stat
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:  # whoever has a tensor has loaded torch; whoever reads files need not wait for it
    from torch import Tensor

ImageSource: TypeAlias = Union[str, Path, Image.Image, npt.NDArray[np.generic], "Tensor"]
Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 500_000_000
"""Larger images are refused (1.5 GB as RGB). Assign to it to allow more; Pillow's own limit,
`PIL.Image.MAX_IMAGE_PIXELS`, is raised to it while an image is decoded and put back afterwards."""
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"
)  # fmt: skip
"""What `list_images` picks from a folder, in lower case; any case counts."""
FLOAT_SLACK = 1e-3
"""Float images may leave [0, 1] by this much (resampling overshoots) and are clipped."""

_DEPTH_RATIO = 257  # 65535 / 255: full range to full range
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DECODING_ERRORS = (*_DAMAGED, *_BOMB)  # what Pillow's decoders raise on such files


class ImageReadError(ValueError):
    """An image cannot be read; the message names it, what is wrong and what to do."""


def read_image(source: ImageSource) -> Pixels:
    """Read one image as RGB, always into memory of its own.

    Files and PIL images are turned upright by their EXIF orientation; of an animation or a
    multi-page file the first image counts; colour profiles are ignored. Whatever is transparent
    is laid on white. 16-bit greys are divided by 257, so that the full range stays the full range
    (Pillow itself reads 16-bit colour files as 8 bit). PIL mode `I` counts as 16-bit grey (Pillow
    used to open such files in it), mode `F` as a float image.

    Args:
        source: a file; a PIL image of any mode; an array (height, width), (height, width, 1),
            (height, width, 3) RGB or (height, width, 4) RGBA; or a tensor (1, height, width) or
            (3, height, width) RGB on any device. Arrays are uint8, uint16 or float in [0, 1],
            tensors uint8 or float in [0, 1].

    Returns:
        (height, width, 3) RGB uint8, C-contiguous.

    Raises:
        ImageReadError: the file is missing, a folder, empty, damaged, no image or larger than
            `MAX_PIXELS`; or shape, type or values are not those above.

    Example:
        >>> read_image(np.full((4, 6), 65535, np.uint16))[0, 0]
        array([255, 255, 255], dtype=uint8)
    """
    match source:
        case str() | Path():
            return _from_file(Path(source))
        case Image.Image():
            return _from_pil(source, f"PIL image {getattr(source, 'filename', '')}".rstrip())
        case np.ndarray():
            return _from_array(source, "array")
        case _ if _is_tensor(source):
            return _from_tensor(source)
        case _:
            raise ImageReadError(
                f"an image cannot be read from {type(source).__name__}; give a path, a PIL "
                "image, a numpy array or a torch tensor (several images: one at a time)"
            )


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """List image files, at least one: files as given, folders recursively in sorted order.

    Folders are searched for `IMAGE_SUFFIXES`; hidden files and folders are left out and links to
    folders inside them are not followed.

    Args:
        paths: files and folders, or a single one.

    Raises:
        ImageReadError: a path is missing, a folder cannot be read, or no image was found.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(_images_below(path))
        elif path.exists():
            found.append(path)
        else:
            raise ImageReadError(_missing(path))
    if not found:
        places = ", ".join(map(str, given)) or "an empty list of paths"
        raise ImageReadError(
            f"no images in {places}; looked for files ending in {' '.join(IMAGE_SUFFIXES)} "
            "(any case, hidden ones left out); name a folder that holds some, or the files"
        )
    return found


def _images_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise ImageReadError(
            f"{error.filename}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return found


class _PillowLimit:
    """Raises Pillow's pixel limit while at least one thread decodes; the last one restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
            self._users += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                Image.MAX_IMAGE_PIXELS = self._before


_pillow_limit = _PillowLimit()


def _missing(path: Path) -> str:
    if str(path).startswith(("http:/", "https:/", "ftp:/", "s3:/", "gs:/")):
        return f"{path}: addresses are not fetched; download the image and give its path"
    place = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
    return f"{path}: there is no such file or folder{place}; check the spelling"


def _from_file(path: Path) -> Pixels:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageReadError(_missing(path)) from error
    except (OSError, ValueError) as error:  # no permission, name too long, NUL in the name
        raise ImageReadError(f"{path}: cannot be opened ({error}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageReadError(f"{path}: is a folder; give a file, or list it with `list_images`")
    if not stat.S_ISREG(status.st_mode):
        raise ImageReadError(f"{path}: is a device or pipe; save the image to a file first")
    if status.st_size == 0:
        raise ImageReadError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        with _pillow_limit:
            image = Image.open(path)
    except PermissionError as error:
        raise ImageReadError(f"{path}: may not be read; check its permissions") from error
    except UnidentifiedImageError as error:
        raise ImageReadError(
            f"{path}: is not an image in a format that Pillow knows, or its first bytes are "
            "damaged; convert it to PNG or JPEG, or download it again"
        ) from error
    except _DECODING_ERRORS as error:
        raise ImageReadError(_undecodable(str(path), error)) from error
    with image:
        return _from_pil(image, str(path))


def _undecodable(name: str, error: BaseException) -> str:
    if isinstance(error, _BOMB):
        return _too_large(name, f"more than {MAX_PIXELS}")
    return f"{name}: is cut short or damaged ({error}); copy or download it again"


def _too_large(name: str, pixels: str) -> str:
    return (
        f"{name}: has {pixels} pixels, allowed are {MAX_PIXELS}; cut it into tiles, or raise "
        "`diffinst.io.images.MAX_PIXELS` if you trust the file"
    )


def _from_pil(image: Image.Image, name: str) -> Pixels:
    pixels = image.width * image.height
    if pixels == 0:
        raise ImageReadError(f"{name}: its size (w, h) is {image.size}, no pixel; leave it out")
    if pixels > MAX_PIXELS:
        raise ImageReadError(_too_large(name, str(pixels)))
    try:
        with _pillow_limit:
            image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "La":  # Pillow only knows the way back to LA
            image = image.convert("LA")
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        values: npt.NDArray[np.generic] = np.asarray(image)
    except _DECODING_ERRORS as error:
        raise ImageReadError(_undecodable(name, error)) from error
    if image.mode == "I":
        values = _mode_i_as_uint16(values, name)
    return _from_array(values, name)


def _mode_i_as_uint16(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.generic]:
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ImageReadError(
            f"{name}: its 32-bit values run from {low} to {high}; allowed are 0 to 65535 (taken as "
            "16-bit grey); scale them and give a uint8 or uint16 array"
        )
    return values.astype(np.uint16)


def _from_array(array: npt.NDArray[np.generic], name: str) -> Pixels:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; if channels come first, use array.transpose(1, 2, 0)" if first else ""
        raise ImageReadError(
            f"{name}: its shape is {array.shape}; allowed are (height, width) and (height, width, "
            f"1 or 3 or 4), one image at a time{hint}"
        )
    if array.size == 0:
        raise ImageReadError(f"{name}: its shape is {array.shape}, without a pixel; leave it out")
    values = _as_uint8(array, name)
    if values.shape[2] == 4:
        values = _on_white(values)
    height, width, _ = values.shape
    return np.array(np.broadcast_to(values, (height, width, 3)), order="C")  # a copy


def _as_uint8(array: npt.NDArray[np.generic], name: str) -> Pixels:
    """Full range to full range: uint16 0..65535 and float 0..1 become 0..255, rounded."""
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # either byte order
        wide = array.astype(np.uint32) + _DEPTH_RATIO // 2
        return (wide // _DEPTH_RATIO).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ImageReadError(
            f"{name}: its type is {array.dtype}; allowed are uint8 (0 to 255), uint16 (0 to 65535) "
            "and float (0 to 1); convert it"
        )
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all():
        raise ImageReadError(f"{name}: holds NaN or infinite values; replace them")
    if low < -FLOAT_SLACK or high > 1 + FLOAT_SLACK:
        raise ImageReadError(
            f"{name}: its float values run from {low:g} to {high:g}; allowed are 0 to 1; divide "
            "them by the largest possible value, or give 0 to 255 as uint8"
        )
    unit: npt.NDArray[np.float32] = array.astype(np.float32).clip(0, 1)
    return np.rint(unit * 255).astype(np.uint8)


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed: npt.NDArray[np.uint32] = rgba[..., :3] * alpha + 255 * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)


def _is_tensor(source: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_tensor(tensor: Tensor) -> Pixels:
    import torch

    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        last = len(shape) == 3 and shape[2] in (1, 3)
        hint = "; if channels come last, use tensor.permute(2, 0, 1)" if last else ""
        raise ImageReadError(
            f"tensor: its shape is {shape}; allowed is (1 or 3, height, width), one image{hint}"
        )
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ImageReadError(
            f"tensor: its type is {tensor.dtype}; allowed are torch.uint8 (0 to 255) and floating "
            "point (0 to 1); convert it"
        )
    dtype = torch.uint8 if tensor.dtype == torch.uint8 else torch.float32  # numpy: no bfloat16
    return _from_array(tensor.detach().to("cpu", dtype).permute(1, 2, 0).numpy(), "tensor")
