"""Windows of OME-Zarr images (0.4 and 0.5) and of single Zarr arrays, by zarr."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, cast

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.windows.axes import ArrayLike, Axes, check_chunk
from diffinst.io.windows.source import Transform

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | None"
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "meter": 1e6}


class ZarrPlanes:
    """See `source.Planes`."""

    transform: Transform | None = None
    crs: str | None = None
    missing: float | None = None

    def __init__(self, path: Path, reading: Reading) -> None:
        try:
            import zarr
        except ImportError as error:
            raise ImageReadError(
                f"{path}: OME-Zarr is read by zarr; run `pip install 'diffinst[microscopy]'`"
            ) from error
        self.name = str(path)
        self.mpp: float | None = None
        try:
            node = zarr.open(path, mode="r")
            if isinstance(node, zarr.Group) and not _multiscale(node) and "0" in node:
                node = node["0"]  # as bioformats2raw writes it, one image per group
            if isinstance(node, zarr.Array):
                arrays, axes = [node], _guessed(node.shape)
            else:
                arrays, axes = self._levels(node)
        except (KeyError, TypeError, OSError, ValueError) as error:
            if isinstance(error, ImageReadError):
                raise
            raise ImageReadError(
                f"{path}: is no Zarr image that is known ({error or type(error).__name__}); it "
                "needs multiscales of OME-Zarr 0.4 or 0.5, or to be one array"
            ) from error
        for array in arrays:
            check_chunk(self.name, array.chunks, array.dtype)
        shape = arrays[0].shape
        alpha = axes.endswith("S") and shape[-1] == 4
        self._axes = Axes(self.name, axes, shape, reading, alpha=alpha)
        self.notes = tuple(self._axes.notes)
        y, x = axes.index("Y"), axes.index("X")
        self.sizes = tuple((array.shape[y], array.shape[x]) for array in arrays)
        self._arrays = cast(list[ArrayLike], arrays)

    def _levels(self, group: zarr.Group) -> tuple[list[zarr.Array], str]:  # type: ignore[name-defined]
        import zarr

        image = _multiscale(group)
        if image is None:
            raise ImageReadError(
                f"{self.name}: is a Zarr group without multiscales; give the group of one image"
            )
        named = cast(list[dict[str, str]], image["axes"])
        axes = "".join(str(axis["name"])[0].upper() for axis in named)
        datasets = cast(list[dict[str, Json]], image["datasets"])
        arrays = [cast("zarr.Array", group[str(one["path"])]) for one in datasets]  # type: ignore[type-arg]
        for step in cast(list[dict[str, Json]], datasets[0].get("coordinateTransformations", [])):
            if step.get("type") == "scale":
                x = axes.index("X")
                unit = _MICROMETRES.get(named[x].get("unit", ""))
                if unit is not None:
                    self.mpp = float(cast(list[float], step["scale"])[x]) * unit
        return arrays, axes

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """See `source.Planes`."""
        return self._axes.values(self._arrays[level], y, x, height, width)

    def close(self) -> None:
        """See `source.Planes`."""
        self._arrays = []


def _multiscale(group: object) -> dict[str, Json] | None:
    """The first image of a group's metadata."""
    attributes = dict(getattr(group, "attrs", {}))
    found = attributes.get("ome", attributes).get("multiscales")
    return cast("dict[str, Json]", found[0]) if found else None


def _guessed(shape: tuple[int, ...]) -> str:
    """The axes of a single array: pages first, colours last where there are 3 or 4."""
    colours = "S" if len(shape) > 2 and shape[-1] in (3, 4) else ""
    pages = len(shape) - 2 - len(colours)
    return "TZQ"[3 - pages :] + "YX" + colours if pages <= 3 else ""
