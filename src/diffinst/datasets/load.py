"""Loads an annotated split, whatever the layout of its folder."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path

from diffinst.datasets import cache, coco, data_yaml, yolo
from diffinst.datasets.images import locate
from diffinst.datasets.layouts import SplitFiles, find_split
from diffinst.datasets.packed import Contents, PackedRecords
from diffinst.datasets.problems import DatasetError, Refusal
from diffinst.datasets.split import Split


def load_split(
    root: str | Path, split: str, *, single_class: bool = False, images: bool = True
) -> Split:
    """Read and check one split; no image is decoded and no mask is drawn.

    Objects without extent (an empty segmentation, polygons of fewer than three points, a box
    without area inside the image) are left out, with one warning a split. What was read of large
    annotation files is kept in the user's cache folder (`diffinst.datasets.cache`).

    Args:
        root: The dataset's folder, see `diffinst.datasets.layouts`.
        split: "train", "val", ...
        single_class: Take all classes as one, named "object".
        images: Make sure that every image is on disk.

    Raises:
        DatasetError: Something is missing, of a wrong type, ambiguous or refers to nothing.

    Example:
        >>> from diffinst.datasets.synthetic import make_shapes
        >>> load_split(make_shapes("shapes"), "train").classes
        ('disc', 'box', 'triangle')
    """
    files = find_split(root, split)
    contents = _read(files)
    if contents.left_out:
        left_out = "; ".join(contents.left_out)
        warnings.warn(f"{files.annotations}: left out {left_out}", stacklevel=2)
    for note in contents.notes:
        warnings.warn(f"{files.annotations}: {note}", stacklevel=2)
    packed = contents.packed
    if images and files.format != "yolo":  # there the images themselves are what is listed
        packed = locate(packed, files.images, files.annotations)
    loaded = Split(
        name=files.name,
        annotation_file=files.annotations,
        classes=contents.classes,
        category_ids=contents.category_ids,
        records=PackedRecords(packed, files.images),
        image_dir=files.images,
        federated=contents.federated,
        frequency=contents.frequency,
    )
    return loaded.merged() if single_class else loaded


def check_trainable(split: Split) -> None:
    """Refuse to train on images without annotations.

    Raises:
        DatasetError: There are no images, or no object on any of them.
    """
    if not len(split.records):
        raise DatasetError(f"{split.annotation_file}: no images to train on")
    if not any(record.annotations for record in split.records):
        raise DatasetError(
            f"{split.annotation_file}: none of its {len(split.records)} images has an annotated "
            "object, so there is nothing to train on; train on an annotated split (test splits are "
            "for prediction only)"
        )


def _read(files: SplitFiles) -> Contents:
    match files.format:
        case "yolo":
            return _read_yolo(files.annotations, files.name)
        case "coco" | "lvis" | "cvat" | "labelme":
            return _read_json(files.annotations, federated=files.format == "lvis")


def _read_yolo(file: Path, split: str) -> Contents:
    images, _ = data_yaml.images_of(file, split, Refusal())
    if len(images) < cache.FEW_FILES:
        return yolo.read(file, split)
    return cache.cached(
        file, split, lambda: yolo.state(file, split), lambda: yolo.read(file, split)
    )


def _read_json(file: Path, *, federated: bool) -> Contents:
    try:
        status = file.stat()
        large = status.st_size >= cache.SMALL and stat.S_ISREG(status.st_mode)
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror}); check it") from error
    if not large:
        return coco.read(file, federated=federated)
    return cache.cached(
        file,
        "lvis" if federated else "",
        lambda: cache.stamp(file),
        lambda: coco.read(file, federated=federated),
    )
