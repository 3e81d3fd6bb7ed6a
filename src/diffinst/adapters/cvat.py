"""CVAT's auto-annotation: a detection function for its command line, and an AI tool to click with.

`cvat-cli task auto-annotate 137 --function-module diffinst.adapters.cvat -p model=str:nano-nuclei`
calls `create` with what stands behind each `-p`, and then the function on each image of the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.adapters.loaded import loaded
from diffinst.adapters.meant import meant
from diffinst.config import OptionFields, Options
from diffinst.inference.image import EncodedImage
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.formats.polygons import joined, parts

if TYPE_CHECKING:
    import cvat_sdk.auto_annotation as cvataa
    from cvat_sdk.models import LabeledShapeRequest

NEEDS = "CVAT's functions need its package: run `pip install 'diffinst[cvat]'`"


def create(
    model: str = "nano-nuclei",
    *,
    steps: int | None = None,
    proposals: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    prompts: bool = False,
) -> Detector | Prompter:
    """What CVAT's command line calls.

    Args:
        model: Name of shipped weights, a model folder, a file, or a hub id.
        steps: Denoising steps; None: as the model has it.
        proposals: Boxes to start from; None: as the model has it.
        seed: Of the noise.
        device: cpu, cuda, ...; None: a GPU if there is one.
        prompts: Make the tool that answers to clicks and boxes (for `cvat-cli function
            create-native` and its agent), not the one that finds all objects.

    Raises:
        ImportError: CVAT's package is missing.
        CheckpointError: No such model.
        ConfigError: A number out of range; names it.
    """
    given = loaded(model, device)
    if prompts:
        return Prompter(given)
    return Detector(given, {"steps": steps, "proposals": proposals, "seed": seed})


class Detector:
    """Finds all objects; CVAT's `DetectionFunction`.

    Args:
        model: Its class names have to be labels of the task.
        options: Of each prediction; the threshold is CVAT's `--conf-threshold`.
    """

    def __init__(self, model: DiffusionInst, options: OptionFields | None = None) -> None:
        self._cvat = _cvat()
        self._model, self._options = model, options or OptionFields()
        Options.of(model.config, **self._options)  # a wrong one is said before any image is fetched
        self.spec: cvataa.DetectionFunctionSpec = self._cvat.DetectionFunctionSpec(
            labels=[
                self._cvat.label_spec(name, i, type="mask")
                for i, name in enumerate(model.class_names)
            ]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[LabeledShapeRequest]:
        """The objects of an image, as masks; as polygons where CVAT asks for them.

        A polygon has no holes and one part: parts are polygons of one group, a bridge leads to a
        hole and back.
        """
        options = self._options
        if context.conf_threshold is not None:
            options = {**options, "threshold": context.conf_threshold}
        found = self._model.predict(image, **options)
        shapes: list[LabeledShapeRequest] = []
        for i, ((y, x), mask) in enumerate(found.mask_crops.placed()):
            if not mask.any():
                continue
            label, score = int(found.labels[i]), float(found.scores[i])
            if not context.conv_mask_to_poly:
                shapes.append(self._cvat.mask(label, encoded(mask, y, x), score=score))
                continue
            lines = [joined(part) for part in parts(mask, y, x)]
            group = i + 1 if len(lines) > 1 else 0
            for line in lines:
                flat = [value for point in line for value in point]
                shapes.append(self._cvat.polygon(label, flat, group=group, score=score))
        return shapes


class Prompter:
    """The object that a box or clicks mean; CVAT's `InteractionFunction`, for its AI tools.

    Args:
        model: Of any classes: the person says what it is.
    """

    def __init__(self, model: DiffusionInst) -> None:
        self._cvat, self._model = _cvat(), model
        self.spec: cvataa.InteractionFunctionSpec = self._cvat.InteractionFunctionSpec(
            min_pos_points=0, min_neg_points=0, min_bounding_boxes=0
        )

    def preprocess_image(
        self, context: cvataa.InteractionFunctionContext, image: Image.Image
    ) -> EncodedImage:
        """The image encoded, once for all clicks on it."""
        return self._model.encode(image)

    def detect(
        self,
        context: cvataa.InteractionFunctionContext,
        image: EncodedImage,
        prompts: cvataa.InteractionPrompts,
    ) -> list[cvataa.InteractionResultShape]:
        """One mask, or none."""
        corners = prompts.bounding_box
        box = None if corners is None else (*corners[0], *corners[1])
        if box is None and not prompts.pos_points:
            return []
        found = meant(image, box, prompts.pos_points, prompts.neg_points)
        return [
            self._cvat.InteractionResultShape(type="mask", points=encoded(mask, y, x))
            for (y, x), mask in found.mask_crops.placed()
            if mask.any()
        ]


def encoded(mask: NDArray[np.bool_], y: int = 0, x: int = 0) -> list[int]:
    """A mask as CVAT stores it: run lengths by rows, off first, then the corners of its window.

    Args:
        mask: (h, w) with at least one pixel.
        y: Row of the image that its first row is.
        x: Column of its first column.

    Example:
        >>> encoded(np.array([[False, True], [True, True]]), y=5, x=7)
        [1, 3, 7, 5, 8, 6]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    flat = mask[y0 : y1 + 1, x0 : x1 + 1].ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return [*([0] if flat[0] else []), *runs, x + x0, y + y0, x + x1, y + y1]


def _cvat() -> cvataa:
    try:
        import cvat_sdk.auto_annotation
    except ImportError as error:
        raise ImportError(NEEDS) from error
    return cvat_sdk.auto_annotation
