"""Windows of TIFF and OME-TIFF, pyramids included, by tifffile and zarr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.microns import microns_of
from diffinst.io.tiff import GEO_KEYS, area, plain
from diffinst.io.windows.axes import ArrayLike, Axes, check_chunk
from diffinst.io.windows.source import Transform

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

MISSING = "run `pip install 'diffinst[microscopy]'` (tifffile, zarr, imagecodecs)"
_ORIENTATION = 274
_MOST_MPP = 100.0  # a coarser image is a scan of paper, whose dots per inch say nothing


def is_geotiff(path: Path) -> bool:
    """Whether a TIFF says where on a map it lies."""
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise ImageReadError(f"{path}: TIFFs are read in windows by tifffile; {MISSING}") from error
    try:
        with TiffFile(path, _multifile=False) as file:
            return GEO_KEYS in file.pages.first.tags
    except (ValueError, OSError, IndexError) as error:
        raise ImageReadError(f"{path}: {_damaged(error)}") from error


class TiffPlanes:
    """See `source.Planes`; of images of several sizes the largest, with its pyramid."""

    transform: Transform | None = None
    crs: str | None = None
    missing: float | None = None

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import zarr
            from tifffile import TiffFile
        except ImportError as error:
            raise ImageReadError(
                f"{path}: TIFFs are read in windows by tifffile and zarr; {MISSING}"
            ) from error
        self.name = str(path)
        try:
            self._file = TiffFile(path, _multifile=False)
        except (ValueError, OSError, IndexError) as error:
            raise ImageReadError(f"{path}: {_damaged(error)}") from error
        try:
            series = max(self._file.series, key=area, default=None)
            if series is None or area(series) == 0:
                raise ImageReadError(f"{path}: is a TIFF without an image; leave it out")
            self._series = series
            self._check(series)
            key = series.keyframe
            alpha = bool({1, 2}.intersection(key.extrasamples))
            self._axes = Axes(str(path), series.axes, series.shape, reading, alpha=alpha)
            self.notes = tuple(self._axes.notes)
            levels = [level for level in series.levels if level.axes == series.axes]
            self.sizes = tuple(_size(level) for level in levels)
            mpp = microns_of(self._file, series.keyframe)
            self.mpp = mpp if mpp is not None and mpp <= _MOST_MPP else None
            self._arrays: list[ArrayLike] = []
            for i, level in enumerate(levels):
                if level.dataoffset is not None:
                    self._arrays.append(self._mapped(path, level))
                    continue
                array = zarr.open_array(series.aszarr(level=i), mode="r")
                check_chunk(str(path), array.chunks, array.dtype)
                self._arrays.append(array)
        except BaseException:
            self._file.close()
            raise

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """See `source.Planes`."""
        return plain(self._axes.values(self._arrays[level], y, x, height, width), self._series)

    def close(self) -> None:
        """See `source.Planes`."""
        self._arrays = []
        self._file.close()

    def _mapped(self, path: Path, level: TiffPageSeries) -> ArrayLike:
        """An image that is stored as it is, in one piece."""
        dtype = np.dtype(level.dtype).newbyteorder(self._file.byteorder)
        try:
            mapped: np.memmap[tuple[int, ...], np.dtype[np.generic]] = np.memmap(
                path, dtype, "r", int(level.dataoffset or 0), tuple(level.shape)
            )
        except ValueError as error:
            raise ImageReadError(f"{path}: {_damaged(error)}") from error
        return mapped

    def _check(self, series: TiffPageSeries) -> None:
        tags = series.keyframe.tags
        turned = int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1
        if turned not in (0, 1):
            raise ImageReadError(
                f"{self.name}: is stored turned (orientation {turned}); save it upright to read it "
                "in windows"
            )


def _size(series: TiffPageSeries) -> tuple[int, int]:
    sides = dict(zip(series.axes, series.shape, strict=True))
    return int(sides["Y"]), int(sides["X"])


def _damaged(error: Exception) -> str:
    return f"is damaged or no TIFF that is known ({error}); copy or download it again"
