"""What tiles found, in pixels of the whole image, before and after seams are decided."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.inference.tile_grid import Rect, Tile
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


@dataclass(frozen=True, eq=False)
class Piece:
    """An object as one tile saw it, or several that were stitched.

    Attributes:
        label: Its class.
        score: In [0, 1].
        box: x0, y0, x1, y1 as predicted.
        y: First row of the mask.
        x: First column of the mask.
        mask: (h, w), tight: something is in each border row and column.
        rects: What the tiles that it comes from saw.
        cut: It touches the border of a tile that is none of the image.
    """

    label: int
    score: float
    box: tuple[float, float, float, float]
    y: int
    x: int
    mask: NDArray[np.bool_]
    rects: tuple[Rect, ...]
    cut: bool

    @property
    def rect(self) -> Rect:
        """The window of the mask."""
        return self.y, self.x, self.y + self.mask.shape[0], self.x + self.mask.shape[1]

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x) of the middle of the window."""
        return self.y + self.mask.shape[0] / 2, self.x + self.mask.shape[1] / 2

    def within(self, rect: Rect) -> NDArray[np.bool_]:
        """Its mask in a rectangle of the image."""
        y0, x0, y1, x1 = rect
        found = np.zeros((y1 - y0, x1 - x0), np.bool_)
        shared = intersection(rect, self.rect)
        if shared is not None:
            top, left, bottom, right = shared
            part = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
            found[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return found


def intersection(a: Rect, b: Rect) -> Rect | None:
    """What two rectangles share; None: nothing."""
    y0, x0, y1, x1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None


def around(a: Rect, b: Rect) -> Rect:
    """The smallest rectangle around two."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def pieces_of(found: Instances, tile: Tile, shape: tuple[int, int]) -> list[Piece]:
    """The instances of a tile that have a mask, where they lie in an image of (height, width)."""
    y0, x0, y1, x1 = tile.rect
    inner = (y0 > 0, x0 > 0, y1 < shape[0], x1 < shape[1])
    pieces = []
    boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
    for i, ((top, left), patch) in enumerate(found.mask_crops.placed()):
        rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
        if not len(rows):
            continue
        mask = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        y, x = y0 + top + int(rows[0]), x0 + left + int(columns[0])
        touches = (y <= y0, x <= x0, y + mask.shape[0] >= y1, x + mask.shape[1] >= x1)
        cut = any(a and b for a, b in zip(inner, touches, strict=True))
        box = tuple(v + (x0, y0)[k % 2] for k, v in enumerate(boxes[i]))
        pieces.append(Piece(labels[i], scores[i], box, y, x, mask, (tile.rect,), cut))
    return pieces


def as_instances(
    pieces: Sequence[Piece], shape: tuple[int, int], names: tuple[str, ...]
) -> Instances:
    """Pieces as the result on an image of (height, width)."""
    if not pieces:
        return Instances.empty(shape, names)
    windows = torch.tensor([[p.y, p.x, *p.mask.shape] for p in pieces])
    masks = CroppedMasks(windows, tuple(torch.from_numpy(p.mask) for p in pieces), shape)
    return Instances(
        boxes=torch.tensor([p.box for p in pieces], dtype=torch.float32),
        scores=torch.tensor([p.score for p in pieces], dtype=torch.float32),
        labels=torch.tensor([p.label for p in pieces]),
        mask_crops=masks,
        image_size=shape,
        class_names=names,
    )


def packed(tiles: Sequence[Sequence[Piece]], skipped: int) -> bytes:
    """The pieces of a row of tiles as bytes of an .npz file, one bit a pixel.

    Args:
        tiles: The pieces of each.
        skipped: How many tiles were passed over.
    """
    all_ = [piece for pieces in tiles for piece in pieces]
    bits = [np.packbits(piece.mask) for piece in all_]
    file = io.BytesIO()
    np.savez(
        file,
        skipped=np.array(skipped),
        counts=np.array([len(pieces) for pieces in tiles], np.int64),
        labels=np.array([p.label for p in all_], np.int64),
        scores=np.array([p.score for p in all_], np.float64),
        boxes=np.array([p.box for p in all_], np.float64).reshape(-1, 4),
        windows=np.array([p.rect for p in all_], np.int64).reshape(-1, 4),
        cut=np.array([p.cut for p in all_], np.bool_),
        masks=np.concatenate(bits) if bits else np.zeros(0, np.uint8),
    )
    return file.getvalue()


def unpacked(content: bytes, tiles: Sequence[Tile]) -> tuple[list[list[Piece]], int]:
    """The reverse of `packed`.

    Raises:
        ValueError: It is damaged, or belongs to other tiles.
    """
    try:
        with np.load(io.BytesIO(content)) as file:
            counts, labels, scores = (
                file["counts"],
                file["labels"].tolist(),
                file["scores"].tolist(),
            )
            boxes, windows = file["boxes"].tolist(), file["windows"].tolist()
            cut, masks, skipped = file["cut"].tolist(), file["masks"], int(file["skipped"])
    except MemoryError:
        raise
    except Exception as error:  # of zip files and arrays, of many kinds
        raise ValueError(str(error) or type(error).__name__) from error
    if len(counts) != len(tiles):
        raise ValueError(f"it holds {len(counts)} tiles, the row has {len(tiles)}")
    found: list[list[Piece]] = []
    i = place = 0
    for tile, count in zip(tiles, counts.tolist(), strict=True):
        found.append([])
        for _ in range(count):
            y0, x0, y1, x1 = windows[i]
            pixels = (y1 - y0) * (x1 - x0)
            size = -(-pixels // 8)
            flat = np.unpackbits(masks[place : place + size], count=pixels).astype(np.bool_)
            place += size
            mask = flat.reshape(y1 - y0, x1 - x0)
            box = (boxes[i][0], boxes[i][1], boxes[i][2], boxes[i][3])
            rects = (tile.rect,)
            found[-1].append(Piece(labels[i], scores[i], box, y0, x0, mask, rects, cut[i]))
            i += 1
    return found, skipped
