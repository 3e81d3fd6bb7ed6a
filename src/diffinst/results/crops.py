"""The masks of n instances, kept without ever holding n full-size images.

Each mask lives inside a window of the image as a small boolean patch; everything outside its
window is background. An image of 1000 instances costs as much memory as their boxes cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from diffinst.datasets.segmentation import placed

Index: TypeAlias = int | slice | Tensor | NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]


class CompressedRLE(TypedDict):
    """A mask as COCO stores it: `size` is [height, width], `counts` the compressed run lengths."""

    size: list[int]
    counts: str


def resolve_index(index: Index, length: int) -> Tensor:
    """Turns anything that picks items of a sequence into the positions it picks.

    Args:
        index: an integer (negative counts from the end), a slice, one bool per item, or integers
            as a tensor, an array or a list.
        length: the number of items there are.

    Returns:
        int64 (m,) positions in [0, length), on the CPU.

    Raises:
        IndexError: a position lies outside the sequence, or a bool mask has another length.
        TypeError: the index is neither integers nor bools.

    Example:
        >>> resolve_index([True, False, True], 3).tolist()
        [0, 2]
        >>> resolve_index(-1, 3).tolist()
        [2]
    """
    if isinstance(index, slice):
        return torch.arange(length)[range(length)[index]]
    positions = torch.as_tensor(index).cpu()
    if positions.dtype == torch.bool:
        if positions.shape != (length,):
            raise IndexError(
                f"the bool index has shape {tuple(positions.shape)}; give one value for each "
                f"of the {length} instances, shape ({length},)"
            )
        return positions.nonzero().flatten()
    if positions.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    if positions.is_floating_point() or positions.is_complex() or positions.ndim > 1:
        raise TypeError(
            f"cannot pick instances with {positions.dtype} of shape {tuple(positions.shape)}; "
            "use an int, a slice, a bool mask (n,) or integers (m,)"
        )
    positions = positions.to(torch.int64).reshape(-1)
    outside = (positions < -length) | (positions >= length)
    if bool(outside.any()):
        raise IndexError(
            f"instance {int(positions[outside][0])} does not exist: there are {length}, "
            f"so indices run from {-length} to {length - 1}"
        )
    return positions % length


@dataclass(frozen=True, eq=False)
class CroppedMasks:
    """Binary masks of n instances, each kept only inside its window.

    Two objects are equal when they hold the same masks, whatever their windows.

    Attributes:
        windows: int64 (n, 4), rows (y0, x0, height, width) in image pixels, inside the image.
            A height or width of 0 means an empty mask.
        patches: n bool tensors (height_i, width_i), on the device of `windows`.
        image_size: (height, width) of the image.

    Raises:
        ValueError: the fields do not fit together, or a window leaves the image.

    Example:
        >>> masks = CroppedMasks(
        ...     windows=torch.tensor([[1, 2, 2, 1]]),
        ...     patches=(torch.ones(2, 1, dtype=torch.bool),),
        ...     image_size=(5, 5),
        ... )
        >>> masks.area().tolist(), masks.tight_boxes().tolist()
        ([2], [[2.0, 1.0, 3.0, 3.0]])
    """

    windows: Tensor
    patches: tuple[Tensor, ...]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.image_size
        if height < 1 or width < 1:
            raise ValueError(
                f"image_size is {self.image_size}; it must be (height, width), both at least 1"
            )
        if self.windows.shape != (len(self.patches), 4) or self.windows.dtype != torch.int64:
            raise ValueError(
                f"windows are {self.windows.dtype} of shape {tuple(self.windows.shape)}; "
                f"{len(self.patches)} patches need int64 windows of shape ({len(self.patches)}, 4)"
            )
        for i, (window, patch) in enumerate(zip(self.windows.tolist(), self.patches, strict=True)):
            y0, x0, h, w = window
            if min(window) < 0 or y0 + h > height or x0 + w > width:
                raise ValueError(
                    f"window {i} (y0, x0, height, width) = {tuple(window)} leaves the image of "
                    f"{height}x{width} (height x width); clip windows before cutting the patches"
                )
            if patch.dtype != torch.bool or patch.shape != (h, w):
                raise ValueError(
                    f"patch {i} is {patch.dtype} of shape {tuple(patch.shape)}; its window needs "
                    f"torch.bool of shape {(h, w)}"
                )
            if patch.device != self.windows.device:
                raise ValueError(
                    f"patch {i} is on {patch.device}, the windows on {self.windows.device}; "
                    "move them to one device"
                )

    @classmethod
    def from_dense(cls, masks: Tensor) -> CroppedMasks:
        """Cuts full-size masks to their tight windows.

        Args:
            masks: bool (n, H, W).

        Returns:
            The same masks; the patches are copies, so `masks` can be freed. An all-zero mask gets
            the window (0, 0, 0, 0).

        Raises:
            ValueError: `masks` is not bool with three axes.
        """
        if masks.ndim != 3 or masks.dtype != torch.bool:
            raise ValueError(
                f"masks are {masks.dtype} of shape {tuple(masks.shape)}; "
                "from_dense needs torch.bool of shape (n, height, width)"
            )
        y0, y1 = _first_and_last(masks.any(dim=2))
        x0, x1 = _first_and_last(masks.any(dim=1))
        windows = torch.stack([y0, x0, y1 - y0, x1 - x0], dim=1)
        patches = tuple(
            mask[y : y + h, x : x + w].clone()
            for mask, (y, x, h, w) in zip(masks, windows.tolist(), strict=True)
        )
        return cls(windows, patches, (masks.shape[1], masks.shape[2]))

    @classmethod
    def cat(cls, parts: Sequence[CroppedMasks]) -> CroppedMasks:
        """Joins the masks of one image, in the order given.

        Raises:
            ValueError: there is nothing to join, or the image sizes differ.
        """
        sizes = {part.image_size for part in parts}
        if len(sizes) != 1:
            raise ValueError(
                f"cannot join {len(parts)} mask sets of image sizes {sorted(sizes)}; "
                "give at least one, all of the same image"
            )
        windows = torch.cat([part.windows for part in parts])
        patches = tuple(patch for part in parts for patch in part.patches)
        return cls(windows, patches, parts[0].image_size)

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: Index) -> CroppedMasks:
        """Picks instances; an integer too gives a `CroppedMasks` (of length 1)."""
        picked = resolve_index(index, len(self))
        patches = tuple(self.patches[i] for i in picked.tolist())
        return CroppedMasks(self.windows[picked.to(self.windows.device)], patches, self.image_size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CroppedMasks):
            return NotImplemented
        return self.image_size == other.image_size and self.to_rle() == other.to_rle()

    __hash__ = None  # type: ignore[assignment]

    def to(self, device: torch.device | str) -> CroppedMasks:
        """Moves windows and patches, all patches in a single transfer."""
        if not self.patches or self.windows.device == torch.device(device):
            return CroppedMasks(self.windows.to(device), self.patches, self.image_size)
        flat = torch.cat([patch.flatten() for patch in self.patches]).to(device)
        pieces = torch.split(flat, [patch.numel() for patch in self.patches])
        patches = tuple(
            piece.reshape(patch.shape) for piece, patch in zip(pieces, self.patches, strict=True)
        )
        return CroppedMasks(self.windows.to(device), patches, self.image_size)

    def placed(self) -> Iterator[tuple[tuple[int, int], NDArray[np.bool_]]]:
        """Yields each patch as a bool array (h, w) with its (y0, x0) in the image."""
        on_cpu = self.to("cpu")
        for (y0, x0, _, _), patch in zip(on_cpu.windows.tolist(), on_cpu.patches, strict=True):
            yield (y0, x0), patch.numpy()

    def dense(self) -> Tensor:
        """Builds the masks full size: bool (n, H, W). This is the array the class avoids."""
        masks = torch.zeros(
            (len(self), *self.image_size), dtype=torch.bool, device=self.windows.device
        )
        for mask, (y, x, h, w), patch in zip(
            masks, self.windows.tolist(), self.patches, strict=True
        ):
            mask[y : y + h, x : x + w] = patch
        return masks

    def area(self) -> Tensor:
        """Counts the pixels of each mask: int64 (n,)."""
        counts = [patch.count_nonzero() for patch in self.patches]
        return torch.stack(counts) if counts else self.windows.new_zeros(0)

    def tight_boxes(self, empty: Tensor | None = None) -> Tensor:
        """Finds the smallest box around each mask.

        Args:
            empty: float32 (n, 4), the boxes of masks without pixels; by default (0, 0, 0, 0).

        Returns:
            float32 (n, 4) xyxy in image pixels; the lower right corner is the far edge of the
            last pixel, so one pixel has a box of area 1.
        """
        boxes = torch.zeros(len(self), 4) if empty is None else empty.to("cpu", copy=True)
        for box, ((y0, x0), patch) in zip(boxes, self.placed(), strict=True):
            rows, columns = np.flatnonzero(patch.any(axis=1)), np.flatnonzero(patch.any(axis=0))
            if rows.size:
                ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                box[:] = torch.tensor(ends) + torch.tensor([x0, y0, x0, y0])
        return boxes.to(self.windows.device)

    def to_rle(self) -> list[CompressedRLE]:
        """Encodes each mask as COCO's compressed RLE, straight from its patch.

        Example:
            >>> CroppedMasks.from_dense(torch.eye(2, dtype=torch.bool)[None]).to_rle()
            [{'size': [2, 2], 'counts': '0120'}]
        """
        rles = [placed(patch, y, x, self.image_size) for (y, x), patch in self.placed()]
        return cast("list[CompressedRLE]", rles)


def _first_and_last(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Position of the first True and one past the last in each row of bool (n, m); 0, 0 if none."""
    positions = torch.arange(occupied.shape[1], device=occupied.device)
    length = occupied.shape[1]
    first = torch.where(occupied, positions, length).amin(dim=1)
    past_last = torch.where(occupied, positions + 1, 0).amax(dim=1)
    return torch.where(past_last == 0, 0, first), past_last


def rle_iou(
    these: Sequence[CompressedRLE], those: Sequence[CompressedRLE], *, inside: bool = False
) -> NDArray[np.float64]:
    """(n, m) mask IoU; `inside`: the fraction of each of these that lies in each of those."""
    if not these or not those:
        return np.zeros((len(these), len(those)))
    # pycocotools: intersection over the area of the first where the second is a crowd
    found = coco_mask.iou(these, those, [int(inside)] * len(those))
    return np.asarray(found, np.float64)
