"""What a prediction holds, and what can be done with it: pick, convert, show, save."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffinst.config import Reading
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError, ImageSource, read_image
from diffinst.results.crops import CompressedRLE, CroppedMasks, Index, resolve_index
from diffinst.results.geojson import FeatureCollection, features
from diffinst.results.labels import write_labels
from diffinst.results.render.marks import INK, check_image
from diffinst.results.render.overlay import overlay

if TYPE_CHECKING:
    import pandas
    import supervision

IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_QUALITY = 95  # contours are thin and coloured: lower qualities smear them
NOTEBOOK_SIDE = 1000  # pixels: larger drawings are scaled down in notebooks

BoxChoice: TypeAlias = Literal["tight", "predicted"]
"""Boxes that are handed on: the smallest ones around the masks, or those that were predicted, which
may cut a mask. An empty mask has its predicted box in either case."""


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

    Two results are equal when all fields but `image`, `path` and `reading` hold the same values,
    wherever they lie. As the last value of a notebook's cell, a result shows itself.

    Attributes:
        boxes: float32 (n, 4) xyxy, pixels of the original image. They are predicted apart from
            the masks, so need not enclose them; `tight` gives boxes that do.
        scores: float32 (n,), in [0, 1].
        labels: int64 (n,), 0-based positions in `class_names`.
        mask_crops: the n masks, each inside its window; `masks` builds them full size.
        image_size: (height, width) of the original image.
        class_names: the names of all classes the model knows.
        image: uint8 (height, width, 3) RGB, the image if it is remembered, for `plot` and `save`.
        path: the file that the image was read from, if any; `plot` and `save` read it again
            where the image is not remembered.
        reading: how it was read: which page, which channel; None: the defaults.

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
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    path: Path | None = field(default=None, repr=False)
    reading: Reading | None = field(default=None, repr=False)

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
        return cls(
            boxes=torch.cat([part.boxes for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            mask_crops=CroppedMasks.cat([part.mask_crops for part in parts]),
            image_size=parts[0].image_size,
            class_names=parts[0].class_names,
            image=next((part.image for part in parts if part.image is not None), None),
            path=next((part.path for part in parts if part.path is not None), None),
            reading=next((part.reading for part in parts if part.path is not None), None),
        )

    @property
    def masks(self) -> Tensor:
        """Full-size masks, bool (n, H, W), built anew at each access."""
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

    def tight(self) -> Instances:
        """The same instances with the smallest boxes around their masks.

        An instance whose mask is empty keeps its box.
        """
        return replace(self, boxes=self.mask_crops.tight_boxes(empty=self.boxes))

    def _with(self, boxes: BoxChoice) -> Instances:
        match boxes:
            case "tight":
                return self.tight()
            case "predicted":
                return self
            case _:
                raise ValueError(f"boxes is {boxes!r}; allowed are 'tight' and 'predicted'")

    def to_coco(
        self,
        image_id: int = 1,
        category_ids: Sequence[int] | None = None,
        *,
        boxes: BoxChoice = "tight",
    ) -> list[CocoResult]:
        """Converts to COCO's results format.

        Args:
            image_id: the id of the image in the annotation file.
            category_ids: the annotation file's id of each class, in the order of `class_names`;
                by default 1 for the first class, 2 for the second, ...
            boxes: which ones `bbox` holds: "tight" around the masks, or as "predicted".

        Returns:
            One entry per instance, ready for `json.dump`. COCO tools that find a `bbox` take its
            area for the mask's when they sort objects by size: omit it to evaluate masks.

        Raises:
            ValueError: `category_ids` has not one id for each class, or `boxes` is another word.
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
                self._with(boxes).boxes.tolist(), scores, labels, rles, strict=True
            )
        ]

    def to_supervision(self, *, boxes: BoxChoice = "tight") -> supervision.Detections:
        """Converts to `supervision.Detections`, class names under `data["class_name"]`.

        Masks become a `supervision.CompactMask` where the installed version can make one from run
        lengths (0.30 and later, sides up to 32,768 pixels), else full size, bool (n, H, W).

        Args:
            boxes: which ones `xyxy` holds: "tight" around the masks, so that crops to them hold
                the whole masks, or as "predicted".

        Raises:
            ImportError: supervision is not installed.
            ValueError: `boxes` is another word.
        """
        try:
            import supervision
        except ImportError as error:
            raise _not_installed("to_supervision", "supervision") from error
        masks: NDArray[np.bool_] | supervision.CompactMask
        inclusive = self.mask_crops.tight_boxes().cpu().numpy() - (0, 0, 1, 1)
        try:
            masks = supervision.CompactMask.from_coco_rle(
                self.mask_crops.to_rle(), inclusive, self.image_size
            )
        except (AttributeError, ValueError):  # an older version, or too large an image for it
            masks = self.masks.cpu().numpy()
        return supervision.Detections(
            xyxy=self._with(boxes).boxes.cpu().numpy(),
            mask=masks,
            confidence=self.scores.cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            data={"class_name": self._class_name()},
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Converts to a `pandas.DataFrame` with a row per instance, in the order of the result.

        Returns:
            Columns label, class_name, score, x0, y0, x1, y1 (the box) and area (of the mask, in
            pixels). Its conditions pick instances: `result[frame.area > 100]`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise _not_installed("to_pandas", "pandas") from error
        columns = {
            "label": self.labels.cpu().numpy(),
            "class_name": self._class_name(),
            "score": self.scores.cpu().numpy(),
            **dict(zip(("x0", "y0", "x1", "y1"), self.boxes.cpu().numpy().T, strict=True)),
            "area": self.mask_crops.area().cpu().numpy(),
        }
        return pandas.DataFrame(columns)

    def to_label_map(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Numbers the pixels by instance.

        Returns:
            uint16 (height, width), or uint32 with more than 65,535 instances: 0 is background, 1
            the instance of the highest score, 2 the next, and so on; where masks overlap, the
            higher score wins.
        """
        large = len(self) > np.iinfo(np.uint16).max
        label_map = np.zeros(self.image_size, dtype=np.uint32 if large else np.uint16)
        placed = list(self.mask_crops.placed())
        by_score = self.scores.argsort(descending=True, stable=True).tolist()
        for rank, i in reversed(list(enumerate(by_score, start=1))):
            (y, x), mask = placed[i]
            label_map[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = rank
        return label_map

    def to_geojson(self) -> FeatureCollection:
        """Converts to a GeoJSON FeatureCollection as QuPath reads it, in pixels.

        Example:
            >>> Instances.empty((4, 6), ("cat",)).to_geojson()
            {'type': 'FeatureCollection', 'features': []}
        """
        return {"type": "FeatureCollection", "features": list(features(self))}

    def write_labels(self, path: str | Path) -> None:
        """Writes a label image, uint32, as .zarr (OME-Zarr) or .tif; see `results.labels`.

        Raises:
            ValueError: the ending is another.
            ImportError: zarr or tifffile is missing.
        """
        write_labels(path, [self], self.image_size)

    def plot(
        self,
        image: ImageSource | None = None,
        *,
        boxes: bool = False,
        labels: bool = True,
        scores: bool = True,
        alpha: float = 0.5,
    ) -> Image.Image:
        """Draws the instances over their image: what `save` writes.

        Smaller instances lie on top; class and score are written where they fit, and not at all
        in crowds of small objects.

        Args:
            image: the image, as `diffinst.io.images.read_image` takes it; by default the one that
                is remembered, else the file at `path`.
            boxes: draw the boxes too.
            labels: write the class.
            scores: write the score.
            alpha: opacity of the fills, in [0, 1].

        Returns:
            An RGB image of the size of the original.

        Raises:
            ValueError: no image is given, remembered or at `path`, it cannot be read or is of
                another size, or alpha lies outside [0, 1].
        """
        pixels = self._pixels(image)
        return overlay(pixels, self, boxes=boxes, labels=labels, scores=scores, alpha=alpha)

    def save(
        self,
        path: str | Path,
        image: ImageSource | None = None,
        *,
        boxes: bool = False,
        labels: bool = True,
        scores: bool = True,
        alpha: float = 0.5,
    ) -> None:
        """Writes the image with the instances drawn over it.

        Args:
            path: a .png, .jpg or .jpeg file; missing folders are made.
            image: as in `plot`, like all that follow.
            boxes: as there.
            labels: as there.
            scores: as there.
            alpha: as there.

        Raises:
            ValueError: as for `plot`, or the type of the file is another.
        """
        path = Path(path)
        kind = IMAGE_FORMATS.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"cannot write {path.name}: use one of {', '.join(IMAGE_FORMATS)}")
        canvas = self.plot(image, boxes=boxes, labels=labels, scores=scores, alpha=alpha)
        with atomic_path(path) as temporary:
            canvas.save(temporary, format=kind, quality=JPEG_QUALITY)

    def save_masks(self, path: str | Path) -> None:
        """Writes the label map (see `to_label_map`) as a 16-bit PNG.

        Args:
            path: a .png file; missing folders are made.

        Raises:
            ValueError: the file type is another, or 16 bits cannot count the instances.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"cannot write {path.name}: label maps are .png files")
        label_map = self.to_label_map()
        if label_map.dtype != np.uint16:
            raise ValueError(
                f"cannot write {path.name}: 16 bits count 65535 instances, here are {len(self)}; "
                "keep fewer with Instances.above, or store to_label_map() with numpy.save"
            )
        with atomic_path(path) as temporary:
            Image.fromarray(label_map).save(temporary, format="PNG")

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the drawing, on plain ground where there is no image."""
        try:
            view = self.plot()
        except ValueError:  # no image, or its file is gone or has changed
            ground = np.full((*self.image_size, 3), INK, dtype=np.uint8)
            view = self.plot(ground, alpha=1.0)
        view.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        png = io.BytesIO()
        view.save(png, format="PNG")
        return png.getvalue()

    def _pixels(self, image: ImageSource | None) -> NDArray[np.uint8]:
        """The image given, else the remembered one, else that of the file."""
        advice = "give the image: result.plot(image=image), result.save(path, image=image)"
        if image is not None:
            return read_image(image, self.reading if isinstance(image, str | Path) else None)
        if self.image is not None:
            return self.image
        if self.path is None:
            raise ValueError(f"this result remembers neither its image nor a file; {advice}")
        try:
            pixels = read_image(self.path, self.reading)
        except ImageReadError as error:
            raise ImageReadError(f"{error}; or {advice}") from error
        if pixels.shape[:2] != self.image_size:
            raise ValueError(
                f"{self.path}: is {pixels.shape[0]}x{pixels.shape[1]} (height x width) by now, the "
                f"result belongs to {self.image_size[0]}x{self.image_size[1]}; predict again, or "
                f"{advice}"
            )
        return pixels

    def _class_name(self) -> NDArray[np.str_]:
        """(n,) the class of each instance by name."""
        names: NDArray[np.str_] = np.array(self.class_names, dtype=np.str_)
        return names.take(self.labels.cpu().numpy())


def _not_installed(method: str, package: str) -> ImportError:
    return ImportError(
        f"{method} needs the package {package}; run `pip install diffinst[{package}]`"
    )


def _check_field(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} are {value.dtype} of shape {tuple(value.shape)}; "
            f"{shape[0]} masks need {dtype} of shape {shape}"
        )
