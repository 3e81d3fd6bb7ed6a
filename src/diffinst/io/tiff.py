"""Reads what Pillow does not of a TIFF: pages, stacks, channels, deep colours (by tifffile)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.planes import first_page, pages_note, projected, upright, which_channels

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, either byte order
_BITS, _DESCRIPTION, _PHOTOMETRIC, _ORIENTATION, _METAMORPH = 258, 270, 262, 274, 33629  # tags
GEO_KEYS = 34735  # the tag of a map, GeoKeyDirectory
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFFs do."""
    with open(path, "rb") as file:
        return file.read(4) in _MARKS


def beyond_pillow(image: Image.Image) -> bool:
    """Whether Pillow would read an opened TIFF in part, or not with all bits."""
    tags = getattr(image, "tag_v2", {})
    bits, photometric = tags.get(_BITS, (1,)), tags.get(_PHOTOMETRIC)
    deep = max(bits) > 8 and (len(bits) > 1 or image.mode == "I" or photometric == _WHITE_IS_ZERO)
    stack = re.search(r"^images=(\d+)", str(tags.get(_DESCRIPTION, "")), re.MULTILINE)
    return deep or _METAMORPH in tags or bool(stack and int(stack[1]) > 1) or _has_second(image)


def _has_second(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def read_tiff(path: Path, reading: Reading, most: int) -> tuple[Values, list[str]]:
    """The image that is asked for, with its own depth, and what is to be told of the others.

    Of images of several sizes (pyramids, slides with label and macro image) the largest is read.
    Pages are all axes (z, time, ...) but height, width, channels and colours, in the file's order;
    three channels are red, green, blue.

    Args:
        path: A TIFF.
        reading: Which page or channel, or how all pages become one.
        most: Pixels of height times width that are allowed.

    Raises:
        ImageReadError: tifffile is missing, or what is asked for is not there, too large or not
            one image.
    """
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise ImageReadError(
            f"{path}: is a TIFF of several pages, of deep colours or of another kind that needs "
            "tifffile; run `pip install 'diffinst[microscopy]'`"
        ) from error
    with TiffFile(path, _multifile=False) as file:
        series = max(file.series, key=area, default=None)
        if series is None or area(series) == 0:
            raise ImageReadError(f"{path}: is a TIFF without an image; leave it out")
        if area(series) > most:
            raise ImageReadError(
                f"{path}: has {area(series)} pixels, allowed are {most}; cut it into tiles"
            )
        return _read(path, series, reading, others=len(file.series) - 1)


def area(series: TiffPageSeries) -> int:
    """Pixels of one plane; 0 where it has no height and width."""
    sizes = [n for axis, n in zip(series.axes, series.shape, strict=True) if axis in "YX"]
    return math.prod(sizes) if len(sizes) == 2 else 0


def _read(
    path: Path, series: TiffPageSeries, reading: Reading, *, others: int
) -> tuple[Values, list[str]]:
    axes, shape = _leading(series)
    order: npt.NDArray[np.int64] = np.arange(math.prod(shape)).reshape(shape)
    channels = 1
    if "C" in axes:
        order = np.moveaxis(order, axes.index("C"), -1)
        channels = order.shape[-1]
    order = order.reshape(-1, channels)
    name, layout = str(path), f"{series.axes} {'x'.join(map(str, series.shape))}"
    plane = _planes(path, series, order.size)
    wanted, colour = [0], reading.channel
    if channels > 1:
        wanted, colour = which_channels(channels, reading.channel, name, layout), None
    alpha = bool({1, 2}.intersection(series.keyframe.extrasamples))  # those that are one

    def page(number: int) -> Values:
        values = np.concatenate([plane(int(k)) for k in order[number, wanted]], axis=2)
        kept = which_channels(values.shape[2], colour, name, layout, alpha=alpha)
        return values[..., kept]

    first = first_page(reading, len(order), name)
    numbers: Iterable[int] = [first] if reading.project is None else range(len(order))
    values = projected(map(page, numbers), reading.project)
    tags = series.keyframe.tags
    values = upright(values, int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1)
    notes = pages_note(reading, len(order), f"{name} ({layout})")
    if channels == 3 and reading.channel is None:
        notes.append(
            f"{name}: its 3 channels are read as red, green and blue; choose one by --channel 0, "
            "Reading(channel=0)"
        )
    if others:
        notes.append(
            f"{name}: holds {others} more of other sizes (thumbnails, say); they are omitted"
        )
    return values, notes


def _leading(series: TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """The axes before those of one plane."""
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if a not in "YXS"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def _planes(path: Path, series: TiffPageSeries, count: int) -> Callable[[int], Values]:
    """Gives the plane of a number as (height, width, samples); decodes one at a time if it can."""
    own = series.keyframe.axes
    lazy = set(own) <= set("YXS") and series.axes.endswith(own) and len(series) == count
    if lazy and series.transform is None:
        return lambda number: _decoded(path, series, int(number))
    last = [axis for axis in "YXS" if axis in series.axes]
    whole = np.moveaxis(
        series.asarray(), [series.axes.index(a) for a in last], range(-len(last), 0)
    )
    shape = whole.shape[-len(last) :]
    planes = whole.reshape(count, *shape[:2], *(shape[2:] or (1,)))
    return lambda number: plain(planes[number], series)


def _decoded(path: Path, series: TiffPageSeries, number: int) -> Values:
    page = series[number]
    if page is None:
        raise ImageReadError(f"{path}: its plane {number} is missing in the file; save it anew")
    key = series.keyframe
    try:
        if key.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
            raise ValueError(f"its colours are {key.photometric!s}")
        values: Values = page.asarray()
    except ValueError as error:  # compressed in a way that tifffile alone does not know
        colours = max(key.samplesperpixel, 1) > 1
        if (key.bitspersample > 8 and colours) or len(page.treeindex) != 1:
            raise ImageReadError(
                f"{path}: cannot be decoded ({error}); run `pip install 'diffinst[microscopy]'`, "
                "or save it without compression"
            ) from error
        return _by_pillow(path, page.index, series)
    if key.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    return plain(values.reshape(*values.shape[:2], -1), series)


def _by_pillow(path: Path, index: int, series: TiffPageSeries) -> Values:
    with Image.open(path) as image:
        image.seek(index)
        if image.mode not in ("L", "F") and not image.mode.startswith("I;16"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        values: Values = np.asarray(image)
    return values.reshape(*values.shape[:2], -1)


def plain(values: Values, series: TiffPageSeries) -> Values:
    """(height, width, samples) with 0 as black, colours in place of a palette's numbers."""
    key = series.keyframe
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if key.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u":
        return np.invert(values)
    if key.photometric == _PALETTE and key.colormap is not None and series.kind != "imagej":
        return np.moveaxis(key.colormap[:, values[..., 0]], 0, -1) >> 8  # ImageJ's is for show
    return values
