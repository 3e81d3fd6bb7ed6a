"""Lists the image files that paths and folders stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffinst.io.foreign import what_it_is
from diffinst.io.image_error import ImageReadError

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"
)  # fmt: skip
"""What `list_images` picks from a folder, in lower case; any case counts."""


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """List image files, at least one: files as given, folders and patterns in sorted order.

    Folders are searched for `IMAGE_SUFFIXES`; hidden files and folders are left out and links to
    folders inside them are not followed. Links to files are listed, wherever they lead.

    Args:
        paths: files, folders and patterns such as "scans/*.png", or a single one.

    Raises:
        ImageReadError: a path is empty or missing, no file matches a pattern, a folder cannot be
            read or is a known format of its own (Zarr), or no image was found.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    found: list[Path] = []
    for path in map(named, given):
        if path.is_dir():
            found += sorted(map(Path, images_below(path)))
        elif path.exists():
            found.append(path)
        elif is_pattern(path):
            found += matching(path)
        else:
            raise ImageReadError(missing(path))
    if not found:
        raise ImageReadError(_nothing([Path(path) for path in given]))
    return found


def is_pattern(path: Path) -> bool:
    """Whether it stands for several files."""
    return any(sign in str(path) for sign in "*?[")


def matching(pattern: Path) -> list[Path]:
    """The files that a pattern stands for, sorted; ** goes into folders below.

    Raises:
        ImageReadError: There are none.
    """
    files = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise ImageReadError(f"{pattern}: no file matches (looked from {Path.cwd()}); check it")
    return files


def named(path: str | Path) -> Path:
    """The path of a name; an empty one (of an unset variable) would be the current folder.

    Raises:
        ImageReadError: The name is empty.
    """
    if str(path).strip():
        return Path(path)
    raise ImageReadError("'': the name is empty; give a file or folder ('.' is the current one)")


def missing(path: Path) -> str:
    """What is wrong with a path that leads nowhere."""
    if str(path).startswith(("http:/", "https:/", "ftp:/", "s3:/", "gs:/")):
        return f"{path}: addresses are not fetched; download the image and give its path"
    if path.is_symlink():
        return f"{path}: is a link to {os.readlink(path)}, which leads nowhere; mend or remove it"
    place = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
    return f"{path}: there is no such file or folder{place}; check the spelling"


def images_below(folder: Path) -> Iterator[str]:
    """The images in a folder and those below, as `list_images` finds them, without holding all.

    Names are sorted; a folder's files come before those of the folders in it.

    Raises:
        ImageReadError: A folder cannot be read, or is a known format of its own.
    """

    def refuse(error: OSError) -> None:
        raise ImageReadError(
            f"{error.filename}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from error

    what = what_it_is(folder)
    if what is not None:
        raise ImageReadError(f"{folder}: {what}")
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield os.path.join(parent, name)


def _nothing(given: Sequence[Path]) -> str:
    places = ", ".join(map(str, given)) or "an empty list of paths"
    inside = (path for folder in given for path in sorted(folder.iterdir()))
    known = (f"; {path} {what}" for path in inside if (what := what_it_is(path, look=False)))
    instead = next(known, "")
    return (
        f"no images in {places}; looked for files ending in {' '.join(IMAGE_SUFFIXES)} "
        f"(any case, hidden ones left out); name a folder that holds some, or the files{instead}"
    )
