"""An image that fits in memory as a windowed one: whatever `io.images.read` takes."""

from __future__ import annotations

from pathlib import Path

from diffinst.config import Reading
from diffinst.io.depth import Pixels
from diffinst.io.images import ImageSource, read
from diffinst.io.windows.source import Transform


class Whole:
    """See `source.WindowedImage`.

    Args:
        source: A file that fits in memory, a PIL image, an array or a tensor.
        reading: As in `io.images.read`.

    Raises:
        ImageReadError: It cannot be read.
    """

    levels: tuple[float, ...] = (1.0,)
    mpp: float | None = None
    transform: Transform | None = None
    crs: str | None = None

    def __init__(self, source: ImageSource, reading: Reading) -> None:
        self._pixels, self.notes = read(source, reading)
        self.name = str(source) if isinstance(source, str | Path) else "image"
        self.shape = (self._pixels.shape[0], self._pixels.shape[1])
        self.sizes: tuple[tuple[int, int], ...] = (self.shape,)

    def read(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
        """See `source.WindowedImage`."""
        window: Pixels = self._pixels[y : y + height, x : x + width].copy()
        return window

    def close(self) -> None:
        """See `source.WindowedImage`."""
