"""Writes label images as TIFF: each pixel holds the number of its object."""

from __future__ import annotations

from pathlib import Path

from diffinst.io.atomic import atomic_path
from diffinst.results.formats.scene import Scene, missing


def need_tifffile() -> None:
    """Refuse to begin without the package.

    Raises:
        ValueError: Says what to install.
    """
    try:
        import tifffile  # noqa: F401
    except ImportError as error:
        raise missing("labels", "tifffile", "microscopy") from error


def write_file(scene: Scene, path: Path) -> None:
    """Write `Instances.to_label_map` of an image: uint16, or uint32 with more than 65,535 objects.

    0 is background, 1 the object of the highest score. A pixel holds one object: where masks
    overlap, the higher score has it. Classes and scores are not there.
    """
    need_tifffile()
    from tifffile import imwrite

    per_cm = None if scene.mpp is None else (1e4 / scene.mpp, 1e4 / scene.mpp)
    with atomic_path(path) as temporary:
        imwrite(
            temporary,
            scene.found.to_label_map(),
            compression="zlib",
            photometric="minisblack",
            resolution=per_cm,
            resolutionunit=None if per_cm is None else "CENTIMETER",
            metadata=None,
            software=False,
        )
