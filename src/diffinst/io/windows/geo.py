"""Windows of GeoTIFF and other maps, with their coordinates, by rasterio."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.pillow import DECODING_ERRORS, limited
from diffinst.io.planes import RGBA, first_page, which_channels
from diffinst.io.tiff import GEO_KEYS, is_tiff
from diffinst.io.windows.source import Transform

if TYPE_CHECKING:
    from rasterio import DatasetReader

_NEEDS = "maps are read by rasterio; run `pip install 'diffinst[geo]'`"


def map_place(path: Path) -> tuple[Transform | None, str | None]:
    """Where on a map a GeoTIFF lies: from its pixels to map coordinates, and the map's system.

    None and None for other files.

    Raises:
        ImageReadError: It is one, and rasterio is missing, or cannot read it.
    """
    if not is_tiff(path) or not _has_geo_keys(path):
        return None, None
    with _opened(path) as file:
        return _placed(file)


def refuse_maps(paths: Iterable[Path]) -> None:
    """Refuse GeoTIFFs where rasterio is missing, before anything is done with them.

    Raises:
        ImageReadError: Names the first one, and says how to install it.
    """
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        for path in paths:
            if _is_map(path):
                raise ImageReadError(f"{path}: {_NEEDS}") from error


class GeoPlanes:
    """See `source.Planes`; bands are channels, overviews are levels."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.name = str(path)
        first_page(reading, 1, self.name)
        self._file = file = _opened(path)
        from rasterio.enums import ColorInterp

        alpha = file.count == RGBA and file.colorinterp[3] == ColorInterp.alpha
        try:
            layout = f"{file.count} bands {file.height}x{file.width}"
            kept = which_channels(file.count, reading.channel, self.name, layout, alpha=alpha)
        except ImageReadError:
            file.close()
            raise
        self._bands = [band + 1 for band in kept]
        ratios = [1, *file.overviews(1)]
        self.sizes = tuple((-(-file.height // r), -(-file.width // r)) for r in ratios)
        self.transform, self.crs = _placed(file)
        self.mpp: float | None = None
        if file.crs and file.crs.is_projected:
            a, d = file.transform.a, file.transform.d
            self.mpp = float(np.hypot(a, d)) * float(file.crs.linear_units_factor[1]) * 1e6
        self.notes: tuple[str, ...] = ()
        self.missing = None if file.nodata is None else float(file.nodata)
        self._table: Values | None = None
        if file.count == 1 and file.colorinterp[0] == ColorInterp.palette:
            colours = file.colormap(1)
            self._table = np.zeros((max(colours) + 1, 3), np.uint8)
            for index, colour in colours.items():
                self._table[index] = colour[:3]

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """See `source.Planes`."""
        from rasterio.windows import Window

        ry = self._file.height / self.sizes[level][0]
        rx = self._file.width / self.sizes[level][1]
        window = Window(x * rx, y * ry, width * rx, height * ry)
        shape = (len(self._bands), height, width)
        values: Values = self._file.read(self._bands, window=window, out_shape=shape)
        return np.moveaxis(values, 0, -1) if self._table is None else self._table[values[0]]

    def close(self) -> None:
        """See `source.Planes`."""
        self._file.close()


def _opened(path: Path) -> DatasetReader:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    except ImportError as error:
        raise ImageReadError(f"{path}: {_NEEDS}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path)
    except RasterioIOError as error:
        raise ImageReadError(f"{path}: rasterio cannot read it ({error})") from error


def _placed(file: DatasetReader) -> tuple[Transform | None, str | None]:
    a, b, c, d, e, f = tuple(file.transform)[:6]
    transform = None if file.transform.is_identity else (a, b, c, d, e, f)
    return transform, file.crs.to_string() if file.crs else None


def _is_map(path: Path) -> bool:
    """Whether it says so; of what is damaged nothing is known."""
    try:
        return is_tiff(path) and _has_geo_keys(path)
    except (OSError, ImageReadError):
        return False


def _has_geo_keys(path: Path) -> bool:
    try:
        with limited(sys.maxsize), Image.open(path) as image:  # nothing is decoded
            return GEO_KEYS in getattr(image, "tag_v2", {})
    except DECODING_ERRORS:  # bands or numbers that Pillow does not know; tifffile has read it
        from diffinst.io.windows.tiff import is_geotiff

        return is_geotiff(path)
