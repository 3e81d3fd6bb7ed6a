"""What a COCO segmentation may be (polygons, plain or compressed RLE), made into masks."""

from __future__ import annotations

import math
import re
import reprlib
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from diffinst.datasets.problems import DatasetError as DatasetError
from diffinst.datasets.problems import refused

_COMPRESSED_RUNS = re.compile(rb"(?:[P-o]{0,6}[0-O])*")
"""Base-32 digits from '0' on, lowest first; those with bit 5 set ('P' to 'o') are continued."""


MAX_RUN = 2**32 - 1  # pixels: pycocotools keeps run lengths in 32 bits
MAX_COORDINATE = 1e6  # pixels: pycocotools walks along every edge, and crashes on NaN


class RLE(TypedDict):
    """Run lengths down the columns, background first: compressed (str, bytes) or plain numbers."""

    size: list[int]  # height, width
    counts: str | bytes | list[int]


Segmentation: TypeAlias = RLE | list[list[float]]


def rasterize(segmentation: Segmentation, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Draw a segmentation the way COCO's own tools do.

    Args:
        segmentation: polygons in pixels, or RLE of size [height, width]. Polygons of fewer than
            three points are ignored.
        height: of the image.
        width: of the image.

    Returns:
        (height, width) bool, C-contiguous.

    Raises:
        DatasetError: the RLE is broken or of another size, or a polygon has an odd length.

    Example:
        >>> rasterize([[1, 0, 3, 0, 3, 2, 1, 2]], 2, 4).astype(int)
        array([[0, 1, 1, 0],
               [0, 1, 1, 0]])
    """
    usable = checked(segmentation, height, width)
    if not usable:
        return np.zeros((height, width), dtype=bool)
    mask = mask_utils.decode(compressed(usable, height, width))
    return np.array(mask, dtype=bool, order="C")


def checked(segmentation: Segmentation, height: int, width: int) -> Segmentation:
    """The segmentation without too short polygons; an empty list where nothing is left."""
    if isinstance(segmentation, list):
        odd = next((polygon for polygon in segmentation if len(polygon) % 2), None)
        if odd is not None:
            raise refused("odd-polygon", count=len(odd))
        for polygon in segmentation:
            low, high = min(polygon, default=0), max(polygon, default=0)
            if max(-low, high) > MAX_COORDINATE or math.isnan(sum(polygon)):
                raise refused("wild-coordinates", low=low, high=high, allowed=MAX_COORDINATE)
        # A list of four numbers would be drawn as a box by pycocotools.
        return [polygon for polygon in segmentation if len(polygon) >= 6]
    if segmentation["size"] != [height, width]:
        given = reprlib.repr(segmentation["size"])
        raise refused("rle-size", given=given, size=[height, width])
    runs = run_lengths(segmentation["counts"])
    pixels = height * width
    wild = runs[(runs < 0) | (runs > pixels)]  # decoded, they would be garbage
    if wild.size:
        raise refused("rle-broken", problem=f"hold {wild[0]}, allowed are 0 to {pixels}")
    total = int(runs.sum())
    if runs.size and total != pixels:
        covered = f"cover {total} pixels, the image has {height} x {width} = {pixels}"
        raise refused("rle-broken", problem=covered)
    return segmentation if runs[1::2].any() else []


def run_lengths(counts: str | bytes | list[int]) -> npt.NDArray[np.int64]:
    """All runs, background first; pycocotools itself never checks what it decodes.

    Raises:
        DatasetError: `counts` are no run lengths.
    """
    if isinstance(counts, list):
        try:
            return np.array(counts, dtype=np.int64)
        except OverflowError as error:
            wild = reprlib.repr(max(counts, key=abs))
            raise refused("rle-broken", problem=f"hold {wild}, more than any image") from error
    code = counts.encode(errors="surrogatepass") if isinstance(counts, str) else counts
    if not _COMPRESSED_RUNS.fullmatch(code):
        raise refused("rle-broken", problem=f"{reprlib.repr(counts)} are no compressed RLE")
    if not code:
        return np.zeros(0, dtype=np.int64)
    digits = np.frombuffer(code, dtype=np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(digits < 32) + 1
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << 5 * place, starts)
    numbers -= np.where(digits[ends - 1] & 16, 1 << 5 * lengths, 0)  # two's complement
    # From the fourth on, a number is the difference from the run two before.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def compressed(segmentation: Segmentation, height: int, width: int) -> RLE:
    """One compressed RLE, whatever the form; polygons are merged."""
    if isinstance(segmentation, list):
        rle: RLE = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
        return rle
    if isinstance(segmentation["counts"], list):
        rle = mask_utils.frPyObjects(segmentation, height, width)
        return rle
    return segmentation


def placed(mask: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> RLE:
    """A mask at its place in an image of (height, width), in which it lies wholly; compressed."""
    height, width = size
    framed = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=np.int8)  # (w, 1 + h + 1)
    framed[:, 1:-1] = mask.T
    steps = np.diff(framed, axis=1)  # (w, h + 1): +1 where a run starts, -1 one past its end
    column, row = np.nonzero(steps)
    edges = (left + column) * height + top + row  # each run's start and end in turn
    # A run that reaches the bottom of the image goes on at the top of the next column.
    twice = np.flatnonzero(edges[:-1] == edges[1:])
    edges = np.delete(edges, [*twice, *(twice + 1)])
    runs = np.diff(edges, prepend=0, append=height * width)
    counts = runs if runs[-1] else runs[:-1]
    rle = mask_utils.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return RLE(size=[height, width], counts=rle["counts"].decode("ascii"))
