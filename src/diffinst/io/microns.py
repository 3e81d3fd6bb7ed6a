"""How large a pixel is, where a file says it in earnest."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from diffinst.io.tiff import area, is_tiff

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_TO_MICRONS = {
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
_CENTIMETER = 3  # of the TIFF tag ResolutionUnit; inches (2) are about paper, often 72 an inch


def microns_per_pixel(path: Path) -> float | None:
    """Micrometres per pixel by OME-TIFF, ImageJ's TIFF, or a TIFF's resolution in centimetres.

    None where the file is of another kind or says nothing, where it says different things of height
    and width (by more than 1 %), or where tifffile is not installed.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        return None
    try:
        if not is_tiff(path):
            return None
        with TiffFile(path) as file:
            return microns_of(file, max(file.series, key=area).keyframe)
    except Exception:  # tifffile raises nearly everything on damaged files
        return None


def microns_of(file: TiffFile, page: TiffPage) -> float | None:
    """The same of an opened TIFF, of the image that a page is the first one of."""
    try:
        sides = _by_ome(file, page) or _by_tags(file, page)
    except (ValueError, ZeroDivisionError):  # said in a way that is no number
        return None
    if sides is None or not all(math.isfinite(side) and side > 0 for side in sides):
        return None
    return sides[0] if math.isclose(*sides, rel_tol=0.01) else None


def _by_ome(file: TiffFile, page: TiffPage) -> tuple[float, float] | None:
    """Width and height; of several images those of the first one of the page's size."""
    found = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", file.ome_metadata or "")
    images = [dict(re.findall(r'(\w+)="([^"]*)"', unescape(pixels))) for pixels in found] or [{}]
    size = {"SizeX": str(page.imagewidth), "SizeY": str(page.imagelength)}
    said = next((image for image in images if size.items() <= image.items()), images[0])
    sides = []
    for name in ("PhysicalSizeX", "PhysicalSizeY"):
        name = name if name in said else "PhysicalSizeX"
        if name not in said:
            return None
        unit = _TO_MICRONS.get(said.get(f"{name}Unit", "µm"), math.nan)
        sides.append(float(said[name]) * unit)
    return sides[0], sides[1]


def _by_tags(file: TiffFile, page: TiffPage) -> tuple[float, float] | None:
    """By the resolution, whose unit ImageJ says in words."""
    tags = page.tags
    across, along = tags.valueof("XResolution"), tags.valueof("YResolution")
    if not across or not along:
        return None
    said = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
    unit = _TO_MICRONS.get(said)
    if unit is None and tags.valueof("ResolutionUnit") == _CENTIMETER:
        unit = _TO_MICRONS["cm"]
    if unit is None:
        return None
    return unit * across[1] / across[0], unit * along[1] / along[0]
