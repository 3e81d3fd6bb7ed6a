"""The fields of a result, checked, picked from, joined and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from diffinst.config import Reading
from diffinst.results.convert import OPTIONAL
from diffinst.results.crops import CroppedMasks, Index, resolve_index
from diffinst.results.meta import Meta
from diffinst.results.render.marks import check_image


@dataclass(frozen=True, eq=False)
class InstanceFields:
    """The fields, as `Instances` describes them, and what needs no other form of them.

    Raises:
        ValueError: the fields do not fit together.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_crops: CroppedMasks
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    ids: Tensor | None = None
    stability: Tensor | None = None
    score_spread: Tensor | None = None
    mask_agreement: Tensor | None = None
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    path: Path | None = field(default=None, repr=False)
    reading: Reading | None = field(default=None, repr=False)
    meta: Meta | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = len(self.mask_crops)
        _check_field("boxes", self.boxes, (n, 4), torch.float32)
        _check_field("scores", self.scores, (n,), torch.float32)
        _check_field("labels", self.labels, (n,), torch.int64)
        for name, value in self.optional().items():
            _check_field(name, value, (n,), torch.int64 if name == "ids" else torch.float32)
        tensors = (self.boxes, self.scores, self.labels, *self.optional().values())
        devices = {str(tensor.device) for tensor in tensors}
        if len(devices | {str(self.mask_crops.windows.device)}) != 1:
            raise ValueError(
                f"boxes, scores and labels are on {sorted(devices)}, the masks on "
                f"{self.mask_crops.windows.device}; move all to one device"
            )
        if self.mask_crops.image_size != self.image_size:
            raise ValueError(
                f"the masks belong to an image of {self.mask_crops.image_size}, the instances to "
                f"one of {self.image_size} (height, width); both must be the original image"
            )
        if not bool(self.boxes.isfinite().all() & self.scores.isfinite().all()):
            raise ValueError("boxes or scores hold NaN or infinity; drop such instances first")
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, but there "
                f"are {len(self.class_names)} class names; labels are 0-based positions in them"
            )
        if self.image is not None:
            check_image(self.image, self.image_size)

    @classmethod
    def empty(cls, image_size: tuple[int, int], class_names: tuple[str, ...]) -> Self:
        """Nothing found on an image of (height, width) `image_size`."""
        labels = torch.zeros(0, dtype=torch.int64)
        masks = CroppedMasks(labels.reshape(0, 4), (), image_size)
        return cls(torch.zeros(0, 4), torch.zeros(0), labels, masks, image_size, class_names)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Joins results for one image, in the order given.

        Raises:
            ValueError: there is nothing to join, or image sizes or class names differ.
        """
        if len({(part.image_size, part.class_names) for part in parts}) != 1:
            raise ValueError(
                f"cannot join {len(parts)} results of image sizes "
                f"{sorted({part.image_size for part in parts})}; give at least one, all of the "
                "same image and with the same class names"
            )
        return cls(
            boxes=torch.cat([part.boxes for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            mask_crops=CroppedMasks.cat([part.mask_crops for part in parts]),
            image_size=parts[0].image_size,
            class_names=parts[0].class_names,
            ids=_joined("ids", [part.ids for part in parts]),
            stability=_joined("stability", [part.stability for part in parts]),
            score_spread=_joined("score_spread", [part.score_spread for part in parts]),
            mask_agreement=_joined("mask_agreement", [part.mask_agreement for part in parts]),
            image=next((part.image for part in parts if part.image is not None), None),
            path=next((part.path for part in parts if part.path is not None), None),
            reading=next((part.reading for part in parts if part.path is not None), None),
            meta=parts[0].meta if len({part.meta for part in parts}) == 1 else None,
        )

    @property
    def masks(self) -> Tensor:
        """Full-size masks, bool (n, H, W), built anew at each access."""
        return self.mask_crops.dense()

    def __len__(self) -> int:
        return len(self.mask_crops)

    def __getitem__(self, index: Index) -> Self:
        """Picks instances; an integer too gives an `Instances` (of length 1)."""
        picked = resolve_index(index, len(self)).to(self.boxes.device)
        return self._each(lambda values: values[picked], self.mask_crops[picked])

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InstanceFields):
            return NotImplemented
        mine, theirs = self.to("cpu"), other.to("cpu")
        return (
            mine.class_names == theirs.class_names
            and torch.equal(mine.boxes, theirs.boxes)
            and torch.equal(mine.scores, theirs.scores)
            and torch.equal(mine.labels, theirs.labels)
            and mine.mask_crops == theirs.mask_crops
            and list(mine.optional()) == list(theirs.optional())
            and all(
                torch.equal(a, b)
                for a, b in zip(mine.optional().values(), theirs.optional().values(), strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        height, width = self.image_size
        counts = Counter(self.class_names[label] for label in self.labels.tolist())
        classes = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        return f"Instances({len(self)} on {height}x{width}{': ' if classes else ''}{classes})"

    def optional(self) -> dict[str, Tensor]:
        """Those of `ids`, `stability`, `score_spread` and `mask_agreement` that are there."""
        given = {name: getattr(self, name) for name in OPTIONAL}
        return {name: value for name, value in given.items() if value is not None}

    def to(self, device: torch.device | str) -> Self:
        """Moves all tensors to a device."""
        return self._each(lambda values: values.to(device), self.mask_crops.to(device))

    def _each(self, change: Callable[[Tensor], Tensor], masks: CroppedMasks) -> Self:
        """The same change to every field of n values, and the masks after it."""

        def changed(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values)

        return replace(
            self,
            boxes=change(self.boxes),
            scores=change(self.scores),
            labels=change(self.labels),
            mask_crops=masks,
            ids=changed(self.ids),
            stability=changed(self.stability),
            score_spread=changed(self.score_spread),
            mask_agreement=changed(self.mask_agreement),
        )

    def above(self, threshold: float) -> Self:
        """Keeps the instances with a score of at least `threshold`."""
        return self[self.scores >= threshold]

    def tight(self) -> Self:
        """The same instances with the smallest boxes around their masks.

        An instance whose mask is empty keeps its box.
        """
        return replace(self, boxes=self.mask_crops.tight_boxes(empty=self.boxes))


def _joined(name: str, parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if len(given) not in (0, len(parts)):
        raise ValueError(
            f"cannot join {len(parts)} results of which {len(given)} have {name}; give all of them "
            f"{name}, or none: dataclasses.replace(result, {name}=None)"
        )
    return torch.cat(given) if given else None


def _check_field(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} are {value.dtype} of shape {tuple(value.shape)}; "
            f"{shape[0]} masks need {dtype} of shape {shape}"
        )
