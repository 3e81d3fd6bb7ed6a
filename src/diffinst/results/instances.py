"""What does a prediction hold, and what can be done with it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffinst.io.atomic import atomic_path
from diffinst.results.crops import CompressedRLE, CroppedMasks, Index, resolve_index
from diffinst.results.render.marks import check_image
from diffinst.results.render.overlay import overlay

if TYPE_CHECKING:
    import supervision

IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_QUALITY = 95  # contours are thin and coloured: lower qualities smear them


class CocoResult(TypedDict):
    """One instance in COCO's results format; `bbox` is x, y, width, height."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: CompressedRLE


@dataclass(frozen=True, eq=False)
class Instances:
    """The n instances found on one image.

    Two results are equal when all fields but `image` hold the same values, wherever they lie.

    Attributes:
        boxes: float32 (n, 4) xyxy, pixels of the original image.
        scores: float32 (n,), in [0, 1].
        labels: int64 (n,), 0-based positions in `class_names`.
        mask_crops: the n masks, each inside its window; `masks` paints them full size.
        image_size: (height, width) of the original image.
        class_names: the names of all classes the model knows.
        image: uint8 (height, width, 3) RGB, the image if it is remembered, for `save`.

    Raises:
        ValueError: the fields do not fit together.

    Example:
        >>> square = torch.zeros(1, 4, 6, dtype=torch.bool)
        >>> square[0, 1:3, 1:3] = True
        >>> found = Instances(
        ...     boxes=torch.tensor([[1.0, 1.0, 3.0, 3.0]]),
        ...     scores=torch.tensor([0.9]),
        ...     labels=torch.tensor([1]),
        ...     mask_crops=CroppedMasks.from_dense(square),
        ...     image_size=(4, 6),
        ...     class_names=("cat", "dog"),
        ... )
        >>> found
        Instances(1 on 4x6: dog 1)
        >>> found.above(0.95)
        Instances(0 on 4x6)
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_crops: CroppedMasks
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    image: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.mask_crops)
        _check_field("boxes", self.boxes, (n, 4), torch.float32)
        _check_field("scores", self.scores, (n,), torch.float32)
        _check_field("labels", self.labels, (n,), torch.int64)
        devices = {str(t.device) for t in (self.boxes, self.scores, self.labels)}
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
    def empty(cls, image_size: tuple[int, int], class_names: tuple[str, ...]) -> Instances:
        """Nothing found on an image of (height, width) `image_size`."""
        labels = torch.zeros(0, dtype=torch.int64)
        masks = CroppedMasks(labels.reshape(0, 4), (), image_size)
        return cls(torch.zeros(0, 4), torch.zeros(0), labels, masks, image_size, class_names)

    @classmethod
    def cat(cls, parts: Sequence[Instances]) -> Instances:
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
        images = [part.image for part in parts if part.image is not None]
        return cls(
            boxes=torch.cat([part.boxes for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            mask_crops=CroppedMasks.cat([part.mask_crops for part in parts]),
            image_size=parts[0].image_size,
            class_names=parts[0].class_names,
            image=images[0] if images else None,
        )

    @property
    def masks(self) -> Tensor:
        """Full-size masks, bool (n, H, W), painted anew at each access."""
        return self.mask_crops.dense()

    def __len__(self) -> int:
        return len(self.mask_crops)

    def __getitem__(self, index: Index) -> Instances:
        """Picks instances; an integer too gives an `Instances` (of length 1)."""
        picked = resolve_index(index, len(self)).to(self.boxes.device)
        boxes, scores = self.boxes[picked], self.scores[picked]
        labels, masks = self.labels[picked], self.mask_crops[picked]
        return replace(self, boxes=boxes, scores=scores, labels=labels, mask_crops=masks)

    def __iter__(self) -> Iterator[Instances]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instances):
            return NotImplemented
        mine, theirs = self.to("cpu"), other.to("cpu")
        return (
            mine.class_names == theirs.class_names
            and torch.equal(mine.boxes, theirs.boxes)
            and torch.equal(mine.scores, theirs.scores)
            and torch.equal(mine.labels, theirs.labels)
            and mine.mask_crops == theirs.mask_crops
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        height, width = self.image_size
        counts = Counter(self.class_names[label] for label in self.labels.tolist())
        classes = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        return f"Instances({len(self)} on {height}x{width}{': ' if classes else ''}{classes})"

    def to(self, device: torch.device | str) -> Instances:
        """Moves all tensors to a device."""
        boxes, scores = self.boxes.to(device), self.scores.to(device)
        labels, masks = self.labels.to(device), self.mask_crops.to(device)
        return replace(self, boxes=boxes, scores=scores, labels=labels, mask_crops=masks)

    def above(self, threshold: float) -> Instances:
        """Keeps the instances with a score of at least `threshold`."""
        return self[self.scores >= threshold]

    def to_coco(
        self, image_id: int = 1, category_ids: Sequence[int] | None = None
    ) -> list[CocoResult]:
        """Converts to COCO's results format.

        Args:
            image_id: the id of the image in the annotation file.
            category_ids: the annotation file's id of each class, in the order of `class_names`;
                by default 1 for the first class, 2 for the second, ...

        Returns:
            One entry per instance, ready for `json.dump`.

        Raises:
            ValueError: `category_ids` has not one id for each class.
        """
        if category_ids is None:
            category_ids = range(1, len(self.class_names) + 1)
        if len(category_ids) != len(self.class_names):
            raise ValueError(
                f"{len(category_ids)} category ids for {len(self.class_names)} classes; give one "
                "id for each class, in the order of class_names"
            )
        scores, labels, rles = self.scores.tolist(), self.labels.tolist(), self.mask_crops.to_rle()
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
                "segmentation": rle,
            }
            for (x0, y0, x1, y1), score, label, rle in zip(
                self.boxes.tolist(), scores, labels, rles, strict=True
            )
        ]

    def to_supervision(self) -> supervision.Detections:
        """Converts to `supervision.Detections`, class names under `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision needs the package supervision; "
                "run `pip install diffinst[supervision]`"
            ) from error
        labels = self.labels.cpu().numpy()
        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy(),
            mask=self.masks.cpu().numpy(),
            confidence=self.scores.cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array(self.class_names, dtype=np.str_)[labels]},
        )

    def save(self, path: str | Path, image: NDArray[np.uint8] | None = None) -> None:
        """Writes the image with the instances drawn over it.

        Args:
            path: a .png, .jpg or .jpeg file; missing folders are made.
            image: uint8 (height, width, 3), RGB; by default the remembered image.

        Raises:
            ValueError: no image is given or remembered, it does not fit, or the type is another.
        """
        path = Path(path)
        kind = IMAGE_FORMATS.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"cannot write {path.name}: use one of {', '.join(IMAGE_FORMATS)}")
        image = self.image if image is None else image
        if image is None:
            raise ValueError(
                "this result does not remember its image; give it as uint8 RGB: "
                "result.save(path, image=image)"
            )
        canvas = overlay(image, self)
        with atomic_path(path) as temporary:
            canvas.save(temporary, format=kind, quality=JPEG_QUALITY)

    def save_masks(self, path: str | Path) -> None:
        """Writes a 16-bit PNG that names the instance of each pixel.

        0 is background, 1 the instance of the highest score, 2 the next, and so on; where masks
        overlap, the higher score wins.

        Args:
            path: a .png file; missing folders are made.

        Raises:
            ValueError: the file type is another, or 16 bits cannot count the instances.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"cannot write {path.name}: label maps are .png files")
        if len(self) > np.iinfo(np.uint16).max:
            raise ValueError(f"{len(self)} instances; 16 bits count 65535, see Instances.above")
        label_map = np.zeros(self.image_size, dtype=np.uint16)
        placed = list(self.mask_crops.placed())
        by_score = self.scores.argsort(descending=True, stable=True).tolist()
        for rank, i in reversed(list(enumerate(by_score, start=1))):
            (y, x), mask = placed[i]
            label_map[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = rank
        with atomic_path(path) as temporary:
            Image.fromarray(label_map).save(temporary, format="PNG")


def _check_field(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} are {value.dtype} of shape {tuple(value.shape)}; "
            f"{shape[0]} masks need {dtype} of shape {shape}"
        )
