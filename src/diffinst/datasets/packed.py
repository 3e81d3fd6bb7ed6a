"""The annotations of many images as a few flat arrays, which processes can share.

118,000 images with 860,000 objects take 0.5 GB this way and 3 GB as Python objects. A record is
made from the arrays when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.segmentation import Segmentation

Ints: TypeAlias = npt.NDArray[np.int64]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[np.generic]

POLYGONS, COMPRESSED, PLAIN = 0, 1, 2
"""How a segmentation is kept: polygons, RLE as text, or RLE as numbers."""


@dataclass(frozen=True, eq=False)
class Packed:
    """n images and their m objects, the objects of one image in a row.

    A row i of a ragged column `x` lies in `x[x_starts[i] : x_starts[i + 1]]`.

    Attributes:
        image_ids: (n,) as in the file.
        sizes: (n, 2) height and width.
        names: Of the images' files, UTF-8; ragged over the images.
        other_names: Where else they may be (LVIS: folder and name in COCO's own layout), or empty;
            ragged over the images.
        negative: Labels known to be absent; ragged over the images.
        not_exhaustive: Labels of which not every object is annotated; ragged over the images.
        object_starts: (n + 1,) image i has the objects from its start to the next.
        ids: (m,) as in the file.
        boxes: (m, 4) xyxy pixels.
        labels: (m,).
        crowds: (m,).
        areas: (m,) square pixels.
        kinds: (m,) `POLYGONS`, `COMPRESSED` or `PLAIN`.
        shapes: (m, 2) first and last + 1, of the object's polygons or of its bytes in `runs`.
        points: x1, y1, x2, y2, ...; ragged over the polygons, of all objects in any order.
        runs: Compressed RLE, and plain run lengths as little-endian uint32.
    """

    image_ids: Ints
    sizes: npt.NDArray[np.int32]
    names: Bytes
    names_starts: Ints
    other_names: Bytes
    other_names_starts: Ints
    negative: npt.NDArray[np.int32]
    negative_starts: Ints
    not_exhaustive: npt.NDArray[np.int32]
    not_exhaustive_starts: Ints
    object_starts: Ints
    ids: Ints
    boxes: Floats
    labels: npt.NDArray[np.int32]
    crowds: npt.NDArray[np.bool_]
    areas: Floats
    kinds: Bytes
    shapes: Ints
    points: Floats
    points_starts: Ints
    runs: Bytes

    def arrays(self) -> dict[str, Array]:
        """All columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __reduce__(self) -> tuple[object, ...]:
        """Columns that lie in a file go to another process by name, not by value."""
        return _unpickled, ({name: _handle(array) for name, array in self.arrays().items()},)

    def with_names(self, names: Sequence[str]) -> Packed:
        """The same with other file names."""
        values, starts = pack_texts(names)
        return replace(self, names=values, names_starts=starts)

    def merged(self) -> Packed:
        """The same with label 0 for every object; nothing large is copied."""
        none, zero = np.zeros(0, np.int32), np.zeros(1, np.int64)
        starts = np.broadcast_to(zero, len(self.image_ids) + 1)
        return replace(
            self,
            labels=np.broadcast_to(np.zeros(1, np.int32), len(self.ids)),
            negative=none,
            negative_starts=starts,
            not_exhaustive=none,
            not_exhaustive_starts=starts,
        )

    def record(self, i: int, folder: Path) -> ImageRecord:
        """Image i, whose file name refers to `folder`."""
        height, width = self.sizes[i].tolist()
        objects = slice(*self.object_starts[i : i + 2].tolist())
        columns = zip(
            self.ids[objects].tolist(),
            self.boxes[objects].tolist(),
            self.labels[objects].tolist(),
            self.kinds[objects].tolist(),
            self.shapes[objects].tolist(),
            self.crowds[objects].tolist(),
            self.areas[objects].tolist(),
            strict=True,
        )
        return ImageRecord(
            int(self.image_ids[i]),
            folder / os.fsdecode(_row(self.names, self.names_starts, i).tobytes()),
            height,
            width,
            tuple(
                Annotation(
                    number,
                    tuple(box),
                    label,
                    self._segmentation(kind, shape[0], shape[1], height, width),
                    crowd,
                    area,
                )
                for number, box, label, kind, shape, crowd, area in columns
            ),
            tuple(_row(self.negative, self.negative_starts, i).tolist()),
            tuple(_row(self.not_exhaustive, self.not_exhaustive_starts, i).tolist()),
        )

    def _segmentation(
        self, kind: int, start: int, stop: int, height: int, width: int
    ) -> Segmentation:
        if kind == POLYGONS:
            points = np.asarray(self.points)  # of a mapped array, every slice is slow
            bounds = self.points_starts[start : stop + 1].tolist()
            return [points[a:b].tolist() for a, b in pairwise(bounds)]
        content = self.runs[start:stop].tobytes()
        counts = np.frombuffer(content, "<u4").tolist() if kind == PLAIN else content.decode()
        return {"size": [height, width], "counts": counts}


def _row(values: Array, starts: Ints, i: int) -> Array:
    return values[starts[i] : starts[i + 1]]


def pack_texts(texts: Sequence[str]) -> tuple[Bytes, Ints]:
    """Values and starts of a ragged column."""
    rows = [os.fsencode(text) for text in texts]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return np.frombuffer(b"".join(rows), np.uint8), starts


def unpack_texts(values: Bytes, starts: Ints) -> list[str]:
    """The rows of a ragged column."""
    content, ends = values.tobytes(), starts.tolist()
    return [os.fsdecode(content[a:b]) for a, b in pairwise(ends)]


@dataclass(frozen=True)
class _InFile:
    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


def _handle(array: Array) -> Array | _InFile:
    # The view of a mapped array keeps the offset of the whole.
    if isinstance(array, np.memmap) and not isinstance(array.base, np.ndarray):
        file = str(array.filename)
        if os.path.exists(file):
            return _InFile(file, array.offset, array.dtype.str, array.shape)
    return array


def _unpickled(columns: dict[str, Array | _InFile]) -> Packed:
    arrays: dict[str, Any] = {
        name: np.memmap(c.path, c.dtype, "r", c.offset, c.shape) if isinstance(c, _InFile) else c
        for name, c in columns.items()
    }
    return Packed(**arrays)


@dataclass(frozen=True, eq=False)
class Contents:
    """What an annotation file says.

    Attributes:
        packed: Its images and objects.
        classes: Names by label.
        category_ids: The file's ids by label.
        federated: Not every class was looked for on every image (LVIS).
        frequency: "r", "c" or "f" by label, or empty.
        left_out: Objects that were left out, one line for each reason.
        notes: What else its user should know.
    """

    packed: Packed
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    federated: bool = False
    frequency: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class PackedRecords(Sequence[ImageRecord]):
    """The images of `Packed`, each made when it is asked for; a slice is a tuple.

    Args:
        packed: The arrays.
        folder: What file names refer to.
        chosen: Rows of the images in use; all where None.
    """

    def __init__(self, packed: Packed, folder: Path, chosen: Ints | None = None) -> None:
        self.packed = packed
        self.folder = folder
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.packed.image_ids if self.chosen is None else self.chosen)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        row = place if self.chosen is None else int(self.chosen[place])
        return self.packed.record(row, self.folder)

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} images of {self.folder}>"

    def rows(self) -> Ints:
        """Rows of the images in use."""
        return np.arange(len(self.packed.image_ids)) if self.chosen is None else self.chosen

    def object_counts(self) -> Ints:
        """(n,) objects of each image."""
        counts: Ints = np.diff(self.packed.object_starts)[self.rows()]
        return counts

    def labels(self) -> npt.NDArray[np.int32]:
        """Labels of all objects, image by image."""
        if self.chosen is None:
            return self.packed.labels
        starts, counts = self.packed.object_starts[self.chosen], self.object_counts()
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        labels: npt.NDArray[np.int32] = self.packed.labels[np.repeat(starts, counts) + within]
        return labels

    def with_ids(self, image_ids: Sequence[int]) -> PackedRecords:
        """Those of these ids, in the order they have here."""
        rows = self.rows()
        kept = np.isin(self.packed.image_ids[rows], np.array(image_ids, np.int64))
        return PackedRecords(self.packed, self.folder, rows[kept])

    def merged(self) -> PackedRecords:
        """The same with label 0 for every object."""
        return PackedRecords(self.packed.merged(), self.folder, self.chosen)
