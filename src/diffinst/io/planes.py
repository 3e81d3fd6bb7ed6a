"""Chooses, among pages and channels, what becomes one image, and turns it upright."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError

RGBA = 4
_TURNS: dict[int, Callable[[Values], Values]] = {  # EXIF 2.3, 4.6.4: orientation to upright
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: v[::-1].swapaxes(0, 1),
    7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
    8: lambda v: v[:, ::-1].swapaxes(0, 1),
}


def which_channels(
    count: int, channel: int | None, name: str, layout: str, *, alpha: bool = False
) -> list[int]:
    """The channels that make an image: the one that is asked for, or grey, RGB or RGBA.

    Args:
        count: How many there are.
        channel: The one to take; None: all of them.
        name: Of the image, for errors.
        layout: Of its channels, for errors.
        alpha: Four of them are RGBA.

    Raises:
        ImageReadError: There is no such channel; or all are too many, or too few, for one image.
    """
    if channel is not None:
        if channel >= count:
            raise ImageReadError(
                f"{name}: has no channel {channel}; there are {count} ({layout}), counted from 0"
            )
        return [channel]
    if count in (1, 3) or (alpha and count == RGBA):
        return list(range(count))
    raise ImageReadError(
        f"{name}: holds {count} channels ({layout}), which are neither grey nor RGB; choose one "
        "by --channel 0, Reading(channel=0)"
    )


def first_page(reading: Reading, count: int, name: str) -> int:
    """The page that is asked for, else the first.

    Raises:
        ImageReadError: There is no such page.
    """
    page = reading.page or 0
    if page >= count:
        pages = f"there are {count}" if count > 1 else "there is one"
        raise ImageReadError(f"{name}: has no page {page}; {pages}, counted from 0")
    return page


def pages_note(reading: Reading, count: int, name: str) -> list[str]:
    """What to tell of pages that are passed over, unless that was asked for."""
    if count == 1 or reading.page is not None or reading.project is not None:
        return []
    return [
        f"{name}: holds {count} pages, the first is read; choose one by --page 0 to {count - 1}, "
        "Reading(page=0), or take all together by --project max, Reading(project='max')"
    ]


def projected(pages: Iterable[Values], project: str | None) -> Values:
    """Pages of one size as one, of the same type: the brightest values, or their mean.

    Args:
        pages: At least one; the first is the result without a projection.
        project: "max", "mean" or None.
    """
    each = iter(pages)
    first = next(each)
    if project is None:
        return first
    if project == "max":
        brightest: Values = first.copy()
        for page in each:
            brightest = np.maximum(brightest, page)
        return brightest
    total, count = first.astype(np.float64), 1
    for page in each:
        total += page.astype(np.float64)
        count += 1
    total /= count
    return (total if first.dtype.kind == "f" else np.rint(total)).astype(first.dtype)


def upright(values: Values, orientation: int) -> Values:
    """An image as EXIF's number says that it is meant, 1 to 8; other numbers say nothing."""
    turn = _TURNS.get(orientation)
    return values if turn is None else turn(values)
