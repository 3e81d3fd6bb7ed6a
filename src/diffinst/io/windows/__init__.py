"""Images too large for memory, read window by window: the protocol, and who reads which file."""

from __future__ import annotations

from pathlib import Path

from diffinst.config import Reading
from diffinst.io.images import ImageReadError, ImageSource
from diffinst.io.listing import missing, named
from diffinst.io.tiff import is_tiff
from diffinst.io.windows.source import Ranged, WindowedImage

__all__ = ["WindowedImage", "is_bright_field", "open_windowed"]

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
"""What openslide reads; formats of scanners, in bright field as a rule."""
MAPS = (".jp2", ".vrt", ".img", ".ecw")
"""What rasterio reads besides GeoTIFF."""


def open_windowed(source: ImageSource | WindowedImage, reading: Reading) -> WindowedImage:
    """Open an image for reading windows; the caller closes it.

    By openslide: slides (`SLIDES`); by rasterio: GeoTIFF and `MAPS`; by zarr: OME-Zarr; by tifffile
    and zarr: all other TIFFs. Whatever else `io.images.read` knows is read whole, and so are
    arrays.

    Args:
        source: A path, an image as `io.images.read` takes it, or one that is open already.
        reading: Page, channel and stretch.

    Raises:
        ImageReadError: It cannot be read, or a package is missing; says how to install it.
    """
    if isinstance(source, WindowedImage):
        return source
    if not isinstance(source, str | Path):
        from diffinst.io.windows.whole import Whole

        return Whole(source, reading)
    path = named(source)
    if not path.exists():
        raise ImageReadError(missing(path))
    try:
        return _opened(path, reading)
    except ImageReadError:
        raise
    except PermissionError as error:
        raise ImageReadError(f"{path}: may not be read; check its permissions") from error


def _opened(path: Path, reading: Reading) -> WindowedImage:
    suffix = path.suffix.lower()
    if path.is_dir() and (suffix == ".zarr" or _is_zarr(path)):
        from diffinst.io.windows.ome_zarr import ZarrPlanes

        return Ranged(ZarrPlanes(path, reading), reading)
    if suffix in SLIDES:
        from diffinst.io.windows.slide import SlidePlanes

        return Ranged(SlidePlanes(path, reading), reading)
    if path.is_file() and path.stat().st_size and is_tiff(path):
        from diffinst.io.windows.tiff import TiffPlanes, is_geotiff

        if is_geotiff(path):
            from diffinst.io.windows.geo import GeoPlanes

            return Ranged(GeoPlanes(path, reading), reading)
        return Ranged(TiffPlanes(path, reading), reading)
    if suffix in MAPS:
        from diffinst.io.windows.geo import GeoPlanes

        return Ranged(GeoPlanes(path, reading), reading)
    from diffinst.io.windows.whole import Whole

    return Whole(path, reading)


def is_bright_field(source: object) -> bool:
    """Whether a source is a slide by its name: tissue on a bright ground, as scanners take it."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SLIDES


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
