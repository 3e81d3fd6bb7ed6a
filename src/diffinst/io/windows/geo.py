"""Windows of GeoTIFF and other maps, with their coordinates, by rasterio."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.planes import RGBA, first_page, which_channels
from diffinst.io.windows.source import Transform


class GeoPlanes:
    """See `source.Planes`; bands are channels, overviews are levels."""

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import rasterio
            from rasterio.enums import ColorInterp
            from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
        except ImportError as error:
            raise ImageReadError(
                f"{path}: maps are read by rasterio; run `pip install 'diffinst[geo]'`"
            ) from error
        self.name = str(path)
        first_page(reading, 1, self.name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._file = rasterio.open(path)
        except RasterioIOError as error:
            raise ImageReadError(f"{path}: rasterio cannot read it ({error})") from error
        file = self._file
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
        a, b, c, d, e, f = tuple(file.transform)[:6]
        self.transform: Transform | None = (
            None if file.transform.is_identity else (a, b, c, d, e, f)
        )
        self.crs: str | None = file.crs.to_string() if file.crs else None
        self.mpp: float | None = None
        if file.crs and file.crs.is_projected:
            self.mpp = float(np.hypot(a, d)) * float(file.crs.linear_units_factor[1]) * 1e6
        self.notes: tuple[str, ...] = ()

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """See `source.Planes`."""
        from rasterio.windows import Window

        ry = self._file.height / self.sizes[level][0]
        rx = self._file.width / self.sizes[level][1]
        window = Window(x * rx, y * ry, width * rx, height * ry)
        shape = (len(self._bands), height, width)
        values: Values = self._file.read(self._bands, window=window, out_shape=shape)
        return np.moveaxis(values, 0, -1)

    def close(self) -> None:
        """See `source.Planes`."""
        self._file.close()
