"""Label images of any size on disk, painted part by part: OME-Zarr and tiled TIFF, uint32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from diffinst.io.atomic import atomic_path

if TYPE_CHECKING:
    from diffinst.results.instances import Instances

CHUNK = 1024  # pixels per side
TIFF_TILE = 512
CREATOR = {"name": "diffinst"}  # in the metadata: such a folder may be replaced
LARGEST_WINDOW = 2**24  # pixels that are painted together; one object's window may be larger


class _Canvas(Protocol):
    def __getitem__(self, key: tuple[slice, slice], /) -> object: ...

    def __setitem__(self, key: tuple[slice, slice], value: NDArray[np.uint32], /) -> None: ...


def write_labels(
    path: str | Path,
    parts: Iterable[Instances],
    image_size: tuple[int, int],
    mpp: float | None = None,
) -> int:
    """Write a label image: 0 is background, 1 the first instance, and so on; returns how many.

    Where masks of one part overlap, the higher score wins; between parts, the first one.

    Args:
        path: NAME.zarr, an OME-Zarr image (0.4) of one level, or NAME.tif, NAME.tiff, tiled.
        parts: Results on one image; an instance's number is its place among them all.
        image_size: (height, width) of the image.
        mpp: Micrometres per pixel, if known.

    Raises:
        ValueError: Another ending, or a folder of that name is no label image of ours.
        ImportError: zarr or tifffile is missing.
        OSError: The disk is full; nothing is left half written.

    Example:
        >>> write_labels("labels.zarr", [result], result.image_size)  # doctest: +SKIP
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".zarr", ".tif", ".tiff"):
        raise ValueError(f"cannot write {path.name}: label images are .zarr, .tif or .tiff")
    folder = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".zarr":
        _recover(path)
        _check_ours(path)
    try:
        canvas = _new_zarr(folder, image_size, path.stem, mpp)
        count = 0
        for part in parts:
            _paint(canvas, part, count + 1)
            count += len(part)
        if kind == ".zarr":
            _check_ours(path)  # again: it may have come up meanwhile
            _replace(folder, path)
        else:
            _write_tiff(path, canvas, image_size, mpp)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return count


def _check_ours(path: Path) -> None:
    """Refuse to replace what `write_labels` has not written; an empty folder is nobody's."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        creator = json.loads((path / ".zattrs").read_bytes()).get("_creator")
    except (OSError, ValueError, AttributeError):
        creator = None
    if creator != CREATOR:
        raise ValueError(
            f"{path}: exists and is no label image that diffinst wrote; choose another name, or "
            "remove it"
        )


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _recover(path: Path) -> None:
    """Put right what a killed process left between two steps of `_replace`."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)


def _replace(folder: Path, path: Path) -> None:
    """Give a complete folder its name; the one of that name goes when the new one is there."""
    aside = _aside(path)
    if path.exists():
        path.rename(aside)
    try:
        folder.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _new_zarr(folder: Path, size: tuple[int, int], name: str, mpp: float | None) -> _Canvas:
    try:
        import zarr
    except ImportError as error:
        raise _missing("zarr") from error
    scale = 1.0 if mpp is None else mpp
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    if mpp is not None:
        axes = [{**axis, "unit": "micrometer"} for axis in axes]
    steps = [{"type": "scale", "scale": [scale, scale]}]
    image = {
        "version": "0.4",
        "name": name,
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    attributes = {
        "multiscales": [image],
        "image-label": {"version": "0.4"},
        "_creator": CREATOR,
    }
    layout = {
        "zarr_format": 2,
        "shape": size,
        "chunks": (min(CHUNK, size[0]), min(CHUNK, size[1])),
        "dtype": "<u4",
        "compressor": {"id": "zstd", "level": 0},
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    # Releases 2 and 3 of zarr, Python 3.10 has only 2, name this differently; the files are one.
    files = {".zgroup": {"zarr_format": 2}, ".zattrs": attributes, "0/.zarray": layout}
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    array: _Canvas = zarr.open_array(folder / "0", mode="r+")
    return array


def _paint(canvas: _Canvas, part: Instances, first: int) -> None:
    placed = list(part.mask_crops.placed())
    order = part.scores.argsort(descending=True, stable=True).tolist()
    for some in _together(order, placed):
        y0 = min(placed[i][0][0] for i in some)
        x0 = min(placed[i][0][1] for i in some)
        y1 = max(placed[i][0][0] + placed[i][1].shape[0] for i in some)
        x1 = max(placed[i][0][1] + placed[i][1].shape[1] for i in some)
        window = np.array(canvas[y0:y1, x0:x1], np.uint32)
        for i in some:
            (y, x), mask = placed[i]
            region = window[y - y0 : y - y0 + mask.shape[0], x - x0 : x - x0 + mask.shape[1]]
            region[mask & (region == 0)] = first + i
        canvas[y0:y1, x0:x1] = window


def _together(
    order: list[int], placed: list[tuple[tuple[int, int], NDArray[np.bool_]]]
) -> Iterator[list[int]]:
    """Instances in order, so many at a time that their common window stays small."""
    some: list[int] = []
    box = (0, 0, 0, 0)
    for i in order:
        (y, x), mask = placed[i]
        own = (y, x, y + mask.shape[0], x + mask.shape[1])
        if not mask.size:
            continue
        joint = own
        if some:
            joint = (
                min(box[0], own[0]), min(box[1], own[1]), max(box[2], own[2]), max(box[3], own[3])
            )  # fmt: skip
            if (joint[2] - joint[0]) * (joint[3] - joint[1]) > LARGEST_WINDOW:
                yield some
                some, joint = [], own
        some, box = [*some, i], joint
    if some:
        yield some


def _write_tiff(path: Path, canvas: _Canvas, size: tuple[int, int], mpp: float | None) -> None:
    try:
        from tifffile import imwrite
    except ImportError as error:
        raise _missing("tifffile") from error

    def tiles() -> Iterator[NDArray[np.uint32]]:
        for y in range(0, size[0], TIFF_TILE):
            for x in range(0, size[1], TIFF_TILE):
                yield np.array(canvas[y : y + TIFF_TILE, x : x + TIFF_TILE], np.uint32)

    per_cm = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with atomic_path(path) as temporary:
        imwrite(
            temporary,
            tiles(),
            shape=size,
            dtype=np.uint32,
            tile=(TIFF_TILE, TIFF_TILE),
            compression="zlib",
            bigtiff=size[0] * size[1] * 4 > 2**31,
            photometric="minisblack",
            resolution=per_cm,
            resolutionunit=None if per_cm is None else "CENTIMETER",
            metadata=None,
            software=False,
            datetime=False,
        )


def _missing(package: str) -> ImportError:
    return ImportError(
        f"write_labels needs the package {package}; run `pip install 'diffinst[microscopy]'`"
    )
