"""Windows of whole-slide images, by openslide."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.planes import first_page, which_channels
from diffinst.io.windows.source import Transform


class SlidePlanes:
    """See `source.Planes`."""

    transform: Transform | None = None
    crs: str | None = None
    missing: float | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import openslide
        except ImportError as error:
            raise ImageReadError(
                f"{path}: slides are read by openslide; run `pip install 'diffinst[slides]'` "
                "(openslide-python, openslide-bin)"
            ) from error
        self.name = str(path)
        first_page(reading, 1, self.name)
        self._channel = reading.channel
        which_channels(3, reading.channel, self.name, "red, green, blue")
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise ImageReadError(
                f"{path}: openslide cannot read it ({error or 'not a slide that it knows'}); "
                "convert it to OME-TIFF with bfconvert of Bio-Formats"
            ) from error
        self.sizes = tuple((height, width) for width, height in self._slide.level_dimensions)
        said = self._slide.properties.get(openslide.PROPERTY_NAME_MPP_X)
        self.mpp = float(said) if said else None

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """See `source.Planes`."""
        ratio = self._slide.level_downsamples[level]
        place = round(x * ratio), round(y * ratio)
        rgba = self._slide.read_region(place, level, (width, height))
        values: Values = np.asarray(rgba)
        return values if self._channel is None else values[..., [self._channel]]

    def close(self) -> None:
        """See `source.Planes`."""
        self._slide.close()
