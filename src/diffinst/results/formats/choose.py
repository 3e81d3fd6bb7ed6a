"""Which formats there are, what writes each into a folder, and what writes a single result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from diffinst.io.windows.geo import map_place
from diffinst.results.formats import imagej, labelme, labels, yolo
from diffinst.results.formats.coco import CocoFile
from diffinst.results.formats.cvat import CvatFile
from diffinst.results.formats.measurements import CsvFile, ParquetFile
from diffinst.results.formats.scene import FilePerImage, Format, Scene
from diffinst.results.geojson import write_geojson

if TYPE_CHECKING:
    from diffinst.results.instances import Instances

FormatName: TypeAlias = Literal[
    "coco", "coco-masks", "yolo", "labelme", "cvat", "imagej", "geojson", "labels", "csv", "parquet"
]
FOLDERS = ("yolo", "labelme", "imagej", "geojson", "labels")
"""Those that `folder_format` writes into a folder of their name; some hold copies of images."""
MEASURED = ("csv", "parquet")
"""Those that hold the brightness of each object, for which they need the image."""
FROM_IMAGE = ("yolo", "labelme", "labels", *MEASURED)
"""Those that need the image's file: for a copy, the brightness or the size of a pixel."""
SUFFIXES: dict[FormatName, tuple[str, ...]] = {
    "coco": (".json",),
    "coco-masks": (".json",),
    "yolo": (".txt",),
    "labelme": (".json",),
    "cvat": (".xml",),
    "imagej": (".zip",),
    "geojson": (".geojson", ".json"),
    "labels": (".tif", ".tiff"),
    "csv": (".csv",),
    "parquet": (".parquet",),
}


def checked(name: str, flag: str = "format") -> FormatName:
    """The name, if it is one of a format.

    Raises:
        ValueError: It is none; names those there are.

    Example:
        >>> checked("yolo")
        'yolo'
    """
    for known in SUFFIXES:
        if name == known:
            return known
    raise ValueError(f"{flag} {name}: unknown; allowed are {', '.join(get_args(FormatName))}")


def folder_format(name: FormatName, out: Path, class_names: Sequence[str]) -> Format:
    """What writes the results of many images in a format.

    Args:
        name: The format.
        out: Gets coco.json, cvat.xml, measurements.csv or .parquet; or a folder of the format's
            name with a file for each image.
        class_names: All classes of the results.

    Raises:
        ValueError: A package that the format needs is not installed; says which.
    """
    folder = out / name
    match name:
        case "yolo":
            return yolo.YoloFolder(folder, class_names)
        case "labelme":
            return FilePerImage(folder, ".json", labelme.write_with_image)
        case "imagej":
            imagej.need_roifile()
            return FilePerImage(folder, ".zip", imagej.write_file)
        case "geojson":
            return FilePerImage(folder, ".geojson", _write_geojson)
        case "labels":
            labels.need_tifffile()
            return FilePerImage(folder, ".tif", labels.write_file)
        case "csv" | "parquet":
            return _file_of_all(name, out / f"measurements.{name}", class_names)
        case _:
            return _file_of_all(name, out / f"{name}{SUFFIXES[name][0]}", class_names)


def write_one(found: Instances, path: Path, name: str, mpp: float | None = None) -> None:
    """See `Instances.export`."""
    format_ = checked(name)
    if path.suffix.lower() not in SUFFIXES[format_]:
        allowed = " or ".join(SUFFIXES[format_])
        raise ValueError(f"cannot write {path.name}: files of the format {name} are {allowed}")
    file_name = f"{path.stem}.png" if found.path is None else found.path.name
    scene = Scene(found, path.stem, file_name, mpp=mpp)
    if format_ == "geojson" and found.path is not None and found.path.is_file():
        transform, crs = map_place(found.path)
        scene = replace(scene, transform=transform, crs=crs)
    match format_:
        case "yolo":
            yolo.write_file(scene, path)
        case "labelme":
            labelme.write_file(scene, path)
        case "imagej":
            imagej.write_file(scene, path)
        case "geojson":
            _write_geojson(scene, path)
        case "labels":
            labels.write_file(scene, path)
        case _:
            one = _file_of_all(format_, path, found.class_names)
            one.add(scene)
            one.finish()


def _write_geojson(scene: Scene, path: Path) -> None:
    write_geojson(path, [scene.found], scene.transform, scene.crs)


def _file_of_all(
    name: Literal["coco", "coco-masks", "cvat", "csv", "parquet"],
    path: Path,
    class_names: Sequence[str],
) -> Format:
    match name:
        case "coco" | "coco-masks":
            return CocoFile(path, class_names, boxes=name == "coco")
        case "cvat":
            return CvatFile(path, class_names)
        case "csv":
            return CsvFile(path)
        case "parquet":
            return ParquetFile(path)
