"""What is handed to a format: an image's result and its names; and what every format can do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from diffinst.io.atomic import atomic_path
from diffinst.io.windows.source import Transform

if TYPE_CHECKING:
    from diffinst.results.instances import Instances


@dataclass(frozen=True)
class Scene:
    """One image's result.

    Attributes:
        found: The instances; `image` or `path` are needed for intensities and copies of images.
        name: Of the files that are written for this image alone; no two images share one.
        file_name: Of the image as other programs look for it, with / between folders.
        image_id: From 1.
        mpp: Micrometres per pixel; None: not known.
        transform: From pixels to map coordinates; None: the image is no map.
        crs: The map's coordinate system.
    """

    found: Instances
    name: str
    file_name: str
    image_id: int = 1
    mpp: float | None = None
    transform: Transform | None = None
    crs: str | None = None


class Format(Protocol):
    """Takes the results of many images one by one; few of them are in memory at a time."""

    @property
    def path(self) -> Path:
        """The file, or the folder, that holds all."""

    def add(self, scene: Scene) -> None:
        """Take one more image."""

    def finish(self) -> None:
        """Put the files that hold all images in place."""


@dataclass(frozen=True)
class FilePerImage:
    """A format of one file for each image.

    Attributes:
        path: The folder where they go, as NAME with the suffix.
        suffix: With its dot.
        write: Writes one, whole or not at all.
    """

    path: Path
    suffix: str
    write: Callable[[Scene, Path], None]

    def add(self, scene: Scene) -> None:
        """Write the file of an image."""
        self.write(scene, self.path / f"{scene.name}{self.suffix}")

    def finish(self) -> None:
        """Nothing is left to do."""


def place_image(scene: Scene, folder: Path) -> str:
    """Put the image into a folder, for programs that look for it there; returns its name.

    A file gets a second name (a hard link), or is copied where the disk has no such; an image that
    came from no file becomes a PNG. Where there is neither, nothing is put there.
    """
    found = scene.found
    if found.path is None or not found.path.is_file():
        name = f"{scene.name}.png"
        if found.image is not None:
            with atomic_path(folder / name) as temporary:
                Image.fromarray(found.image).save(temporary, format="PNG")
        return name
    name = f"{scene.name}{found.path.suffix}"
    source, target = Path(os.path.realpath(found.path)), folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return name
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        with atomic_path(target) as temporary:
            temporary.write_bytes(source.read_bytes())
    return name


def missing(format_: str, package: str, extra: str) -> ValueError:
    """The error for a package that is not installed."""
    return ValueError(
        f"format {format_} needs the package {package}; run `pip install 'diffinst[{extra}]'`"
    )
