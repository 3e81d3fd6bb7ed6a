"""The marks of an instance: its colour, fill, contour, box and label, drawn in its own window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from diffinst.results.crops import CroppedMasks

Color: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[float, float, float, float]

# Bright hues of similar weight; neighbours in this list are far apart on the colour circle.
PALETTE: tuple[Color, ...] = (
    (41, 182, 255),
    (255, 138, 31),
    (64, 224, 96),
    (255, 64, 160),
    (255, 224, 51),
    (138, 99, 255),
    (30, 230, 200),
    (255, 77, 66),
    (176, 240, 48),
    (224, 90, 255),
    (74, 120, 255),
    (255, 150, 170),
)
LABEL_HEIGHT_FRACTION = 0.4  # a label may cover this much of the height of its instance
LABELLED_AREA_FRACTION = 0.5  # with less of the objects' area labelled, an image stays without
MAX_LINE_FRACTION = 1 / 6  # an outline is no wider than this part of the side of its object
INK: Color = (28, 32, 38)
PAPER: Color = (255, 255, 255)


class Drawable(Protocol):
    """What can be drawn over its image; `diffinst.Instances` is one."""

    @property
    def boxes(self) -> Tensor:
        """float32 (n, 4) xyxy, image pixels."""

    @property
    def scores(self) -> Tensor:
        """float32 (n,), in [0, 1]."""

    @property
    def labels(self) -> Tensor:
        """int64 (n,), positions in `class_names`."""

    @property
    def mask_crops(self) -> CroppedMasks:
        """The n masks."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes."""

    @property
    def ids(self) -> Tensor | None:
        """int64 (n,), which object of a video each is; None: not tracked."""

    def to(self, device: torch.device | str) -> Self:
        """The same with all tensors on a device."""


def check_image(image: NDArray[np.uint8], image_size: tuple[int, int]) -> None:
    """Refuses what is not the image of a result.

    Args:
        image: must be uint8 (H, W, 3), RGB.
        image_size: (H, W) of the image that the result belongs to.

    Raises:
        ValueError: dtype or shape are others.
    """
    if image.dtype != np.uint8 or image.shape != (*image_size, 3):
        raise ValueError(
            f"the image is {image.dtype} of shape {image.shape}, but the instances belong to one "
            f"of (height, width) {image_size}; give that image, RGB, uint8 {(*image_size, 3)}"
        )


def instance_colors(boxes: Tensor, scores: Tensor) -> list[Color]:
    """Chooses a colour per instance: the one whose nearest use in the image is farthest away.

    Instances choose by descending score, so the same result always has the same colours.

    Args:
        boxes: (n, 4) xyxy, image pixels, on the CPU.
        scores: (n,), on the CPU.

    Returns:
        One RGB colour of `PALETTE` per instance, in the order given.
    """
    centers = (boxes[:, :2] + boxes[:, 2:]).numpy() / 2  # (n, 2)
    chosen = np.full(len(boxes), -1)
    for i in scores.argsort(descending=True, stable=True).tolist():
        nearest_use = np.full(len(PALETTE), np.inf)
        done = chosen >= 0
        distances = np.linalg.norm(centers[done] - centers[i], axis=1)
        np.minimum.at(nearest_use, chosen[done], distances)
        chosen[i] = nearest_use.argmax()
    return [PALETTE[color] for color in chosen.tolist()]


def id_colors(ids: Tensor) -> list[Color]:
    """The colour of each id (n,): the same one in every frame of a video.

    Example:
        >>> id_colors(torch.tensor([1, 13])) == [PALETTE[1], PALETTE[1]]
        True
    """
    return [PALETTE[number % len(PALETTE)] for number in ids.tolist()]


def draw_masks(
    image: NDArray[np.uint8],
    masks: CroppedMasks,
    colors: Sequence[Color],
    alpha: float,
    line: float,
) -> Image.Image:
    """Fills and outlines masks on a copy of their image: larger ones first, an upper one hides.

    Args:
        image: uint8 (H, W, 3), RGB.
        masks: the masks, on any device.
        colors: one for each mask.
        alpha: opacity of the fills, in [0, 1].
        line: width of the outlines in pixels; those of small objects are thinner.
    """
    areas = masks.area()
    widths = (areas.sqrt() * MAX_LINE_FRACTION).clamp(min=1.0).tolist()
    border = _blur(line)[1]  # outlines reach beyond masks, and those perhaps beyond the image
    canvas = np.pad(image, ((border, border), (border, border), (0, 0)))
    placed = list(masks.placed())
    for i in areas.argsort(descending=True, stable=True).tolist():
        (y, x), mask = placed[i]
        if not mask.any():
            continue
        h, w = mask.shape
        color = np.array(colors[i], dtype=np.float32)
        inside = image[y : y + h, x : x + w][mask]
        window = canvas[y + border :, x + border :][:h, :w]
        window[mask] = np.rint((1 - alpha) * inside + alpha * color)
        opacity = contour(mask, min(widths[i], line))[..., None]
        margin = border - (opacity.shape[0] - h) // 2
        window = canvas[y + margin :, x + margin :][: opacity.shape[0], : opacity.shape[1]]
        window[:] = np.rint((1 - opacity) * window + opacity * color)
    return Image.fromarray(canvas[border:-border, border:-border])


def _blur(line: float) -> tuple[float, int]:
    """Standard deviation and reach, in pixels, of the blur that makes a contour smooth."""
    sigma = max(1.0, line / 2)
    return sigma, math.ceil(3 * sigma)


def contour(mask: NDArray[np.bool_], line: float) -> NDArray[np.float32]:
    """Opacity in [0, 1] of a smooth line along the edge of a mask (h, w).

    A straight edge blurred by a Gaussian has the value Phi(d / sigma) at the signed distance d, so
    the inverse of Phi turns the blurred mask into distances, free of the pixels' stairs.

    Returns:
        (h + 2m, w + 2m), the mask's window with a margin of m pixels on each side.
    """
    sigma, margin = _blur(line)
    offsets = torch.arange(-margin, margin + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    soft = torch.from_numpy(mask).float()[None, None]  # (1, 1, h, w)
    soft = F.conv2d(F.pad(soft, (2 * margin, 2 * margin, 0, 0)), kernel.view(1, 1, 1, -1))
    soft = F.conv2d(F.pad(soft, (0, 0, 2 * margin, 2 * margin)), kernel.view(1, 1, -1, 1))
    soft = (soft / soft.amax())[0, 0].clamp(0, 1)  # dots thinner than the blur keep an outline
    distance = sigma * torch.special.ndtri(soft.float())
    opacity: NDArray[np.float32] = (line / 2 + 0.5 - distance.abs()).clamp(0, 1).numpy()
    return opacity


def draw_boxes(
    canvas: Image.Image,
    boxes: Sequence[Box],
    colors: Sequence[Color],
    width: int,
    opacity: float = 1.0,
) -> None:
    """Draws boxes xyxy (far edges outside the last pixel), the first on top."""
    draw = ImageDraw.Draw(canvas, "RGBA")
    for (x0, y0, x1, y1), color in reversed(list(zip(boxes, colors, strict=True))):
        left, top = round(x0), round(y0)
        right, bottom = max(left, round(x1) - 1), max(top, round(y1) - 1)
        ink = (*color, round(255 * opacity))
        draw.rectangle((left, top, right, bottom), outline=ink, width=width)


def draw_labels(
    canvas: Image.Image,
    instances: Drawable,
    texts: Sequence[str],
    colors: Sequence[Color],
    font_size: int,
) -> None:
    """Writes a text at the top of each instance on the CPU, by the rule told in `overlay`."""
    font = ImageFont.load_default(size=font_size)
    draw = ImageDraw.Draw(canvas)
    outlines = instances.mask_crops.tight_boxes(empty=instances.boxes).tolist()
    area = instances.mask_crops.area()
    pad = max(2, font_size // 5)
    height = font_size + 2 * pad
    chips: dict[int, Box] = {}
    for i in instances.scores.argsort(descending=True, stable=True).tolist():
        width = math.ceil(font.getlength(texts[i])) + 2 * pad
        x0, y0, x1, y1 = outlines[i]
        left, top = round((x0 + x1 - width) / 2), round(y0)
        chip = (left, top, left + width, top + height)
        fits = width <= x1 - x0 and height <= LABEL_HEIGHT_FRACTION * (y1 - y0)
        if fits and not any(_touch(chip, other) for other in chips.values()):
            chips[i] = chip
    if area[list(chips)].sum() < LABELLED_AREA_FRACTION * area.sum():
        return
    for i, chip in chips.items():
        draw.rounded_rectangle(chip, radius=pad, fill=colors[i])
        middle = ((chip[0] + chip[2]) / 2, (chip[1] + chip[3]) / 2)
        draw.text(middle, texts[i], fill=INK, font=font, anchor="mm")


def draw_numbers(
    canvas: Image.Image, instances: Drawable, numbers: Sequence[int], font_size: int
) -> None:
    """Writes a number at the middle of each instance on the CPU, where it is no wider than it."""
    font = ImageFont.load_default(size=font_size)
    draw = ImageDraw.Draw(canvas)
    outlines = instances.mask_crops.tight_boxes(empty=instances.boxes).tolist()
    for (x0, y0, x1, y1), number in zip(outlines, numbers, strict=True):
        if font.getlength(str(number)) <= x1 - x0:
            draw.text(
                ((x0 + x1) / 2, (y0 + y1) / 2),
                str(number),
                fill=PAPER,
                font=font,
                anchor="mm",
                stroke_width=max(1, font_size // 8),
                stroke_fill=INK,
            )


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
