"""What a prediction holds, and what can be made of it: other forms, drawings, files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError, ImageSource, read_image
from diffinst.results import convert
from diffinst.results.convert import BoxChoice, CocoResult
from diffinst.results.fields import InstanceFields
from diffinst.results.geojson import FeatureCollection, features
from diffinst.results.labels import write_labels
from diffinst.results.render.marks import INK
from diffinst.results.render.overlay import overlay

if TYPE_CHECKING:
    import pandas
    import supervision

IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_QUALITY = 95  # contours are thin and coloured: lower qualities smear them
NOTEBOOK_SIDE = 1000  # pixels: larger drawings are scaled down in notebooks


class Instances(InstanceFields):
    """The n instances found on one image.

    Two results are equal when all fields but `image`, `path`, `reading` and `meta` hold the same
    values, wherever they lie. As the last value of a notebook's cell, a result shows itself.

    Attributes:
        boxes: float32 (n, 4) xyxy, pixels of the original image. They are predicted apart from
            the masks, so need not enclose them; `tight` gives boxes that do.
        scores: float32 (n,), in [0, 1].
        labels: int64 (n,), 0-based positions in `class_names`.
        mask_crops: the n masks, each inside its window; `masks` builds them full size.
        image_size: (height, width) of the original image.
        class_names: the names of all classes the model knows.
        ids: int64 (n,), which object of a video each is, from 1; None: not tracked.
        stability: float32 (n,) in [0, 1], the fraction of repeated predictions, each from noise of
            its own, that found the instance; None: predicted once.
        score_spread: float32 (n,), standard deviation of the score over those that found it.
        mask_agreement: float32 (n,) in [0, 1], mean mask IoU with what the others of them found; 0
            where one alone found it.
        image: uint8 (height, width, 3) RGB, the image if it is remembered, for `plot` and `save`.
        path: the file that the image was read from, if any; `plot` and `save` read it again
            where the image is not remembered.
        reading: how it was read: which page, which channel; None: the defaults.
        meta: how the result was made: steps, proposals, seconds; None: not known, or joined from
            results that were made in several ways.

    Raises:
        ValueError: the fields do not fit together.

    Example:
        >>> import torch
        >>> from diffinst.results.crops import CroppedMasks
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

    @classmethod
    def from_coco(
        cls,
        results: Sequence[CocoResult],
        image_size: tuple[int, int],
        class_names: tuple[str, ...],
        category_ids: Sequence[int] | None = None,
    ) -> Instances:
        """What `to_coco` gave, read again: one image's entries of a `results.json`.

        Args:
            results: of one image.
            image_size: its (height, width).
            class_names: all classes.
            category_ids: as in `to_coco`.

        Raises:
            ValueError: an entry of another image size or class; names it.

        Example:
            >>> mask = {"size": [2, 2], "counts": "04"}
            >>> entry = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.9}
            >>> Instances.from_coco([{**entry, "segmentation": mask}], (2, 2), ("cat",))
            Instances(1 on 2x2: cat 1)
        """
        return convert.from_coco(results, image_size, class_names, category_ids)

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
            One entry per instance, ready for `json.dump`; optional fields are there as `track_id`,
            `stability`, `score_spread`, `mask_agreement`. COCO tools that find a `bbox` take its
            area for the mask's when they sort objects by size: omit it to evaluate masks.

        Raises:
            ValueError: `category_ids` has not one id for each class, or `boxes` is another word.
        """
        return convert.to_coco(self, image_id, category_ids, boxes=boxes)

    def to_supervision(self, *, boxes: BoxChoice = "tight") -> supervision.Detections:
        """Converts to `supervision.Detections`, class names under `data["class_name"]`.

        `ids` become `tracker_id`, other optional fields stand in `data`.

        Masks become a `supervision.CompactMask` where the installed version can make one from run
        lengths (0.30 and later, sides up to 32,768 pixels), else full size, bool (n, H, W).

        Args:
            boxes: which ones `xyxy` holds: "tight" around the masks, so that crops to them hold
                the whole masks, or as "predicted".

        Raises:
            ImportError: supervision is not installed.
            ValueError: `boxes` is another word.
        """
        return convert.to_supervision(self, boxes=boxes)

    def to_pandas(self) -> pandas.DataFrame:
        """Converts to a `pandas.DataFrame` with a row per instance, in the order of the result.

        Returns:
            Columns label, class_name, score, x0, y0, x1, y1 (the box), area (of the mask, in
            pixels), and the optional fields that are there. Its conditions pick instances:
            `result[frame.area > 100]`.

        Raises:
            ImportError: pandas is not installed.
        """
        return convert.to_pandas(self)

    def to_label_map(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Numbers the pixels by instance.

        Returns:
            uint16 (height, width), or uint32 with more than 65,535 instances: 0 is background, 1
            the instance of the highest score, 2 the next, and so on; where masks overlap, the
            higher score wins.
        """
        return convert.to_label_map(self)

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
        pixels = self.pixels(image)
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

    def export(self, path: str | Path, format: str, *, mpp: float | None = None) -> None:
        """Writes the instances as a file of another program; docs/other-tools.md has what is lost.

        Args:
            path: the file, of the format's type; missing folders are made.
            format: coco (.json), coco-masks (.json, without boxes), yolo (.txt), labelme (.json),
                cvat (.xml), imagej (.zip), geojson (.geojson), labels (.tif), or a table of
                measurements: csv, parquet.
            mpp: micrometres per pixel, for measurements and label images; None: not known.

        Raises:
            ValueError: the format or the type of the file is another, or a package is missing.
        """
        from diffinst.results.formats.choose import write_one

        write_one(self, Path(path), format, mpp)

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

    def pixels(self, image: ImageSource | None = None) -> NDArray[np.uint8]:
        """The image given, else the remembered one, else that of the file.

        Returns:
            uint8 (height, width, 3) RGB.

        Raises:
            ValueError: as for `plot`.
        """
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
