"""How an image is cut into tiles, and at which scale a model sees them: decided once, told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffinst.config import Config, ConfigError, OptionFields, Options
from diffinst.inference.tile_grid import Rect, TileGrid, alignment
from diffinst.io.windows import WindowedImage

Skip: TypeAlias = Literal["auto", "flat", "tissue", "none"]
"""Which tiles are passed over: `flat` ones, without any content; on bright-field slides also those
without `tissue`; `none`. `auto` is tissue for what openslide reads, flat for all else."""
LARGEST_SCALE = 64.0
MOST_SIDE = 65_535  # of a network's input
MOST_PROPOSALS = 100_000


@dataclass(frozen=True)
class TileRequest:
    """What a caller asks for.

    Attributes:
        tile: Side of a tile, in pixels at the model's scale; those of the image if none is set.
        overlap: That neighbours share, in the same pixels.
        batch: Tiles that go through the network together; None: as the device does best.
        mpp: Micrometres per pixel of the image, in place of what its file says.
        object_size: Typical diameter of the objects, in pixels of the image.
        level: Of the file's pyramid, which is taken as the model's scale.
        skip: Which tiles are passed over.
    """

    tile: int = 1024
    overlap: int = 128
    batch: int | None = None
    mpp: float | None = None
    object_size: float | None = None
    level: int | None = None
    skip: Skip = "auto"

    def __post_init__(self) -> None:
        TileGrid((1, 1), self.tile, self.overlap)
        for name in ("mpp", "object_size"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; give a number above 0")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; give at least 1")
        if self.level is not None and (self.object_size is not None or self.level < 0):
            raise ConfigError(
                f"level is {self.level}"
                + (f" and object_size {self.object_size:g}; give one" if self.level >= 0 else "")
                + ("; levels are counted from 0" if self.level < 0 else " of the two")
            )


@dataclass(frozen=True)
class TilePlan:
    """What is done with one image.

    Attributes:
        grid: Of tiles, in pixels of level 0.
        scale: Pixels of the model's scale per pixel of level 0.
        zoom: Pixels of the network's input per pixel of level 0.
        level: The one that windows are read from.
        size: (height, width) of it.
        shrunk: How many times smaller it is than level 0; see `WindowedImage.levels`.
        options: Of a tile that the model takes whole; see `options_of`.
        whole: Pixels of the network's input, as many as the model takes of a whole image.
        skip: Which tiles are passed over: flat, tissue or none.
        notes: What is to be told, a line each.
    """

    grid: TileGrid
    scale: float
    zoom: float
    level: int
    size: tuple[int, int]
    shrunk: float
    options: Options
    whole: int
    skip: Skip
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        config: Config,
        image: WindowedImage,
        request: TileRequest,
        options: OptionFields,
        *,
        bright: bool,
    ) -> TilePlan:
        """Decide.

        Args:
            config: The model's.
            image: What is cut.
            request: By the caller.
            options: Of a prediction, by the caller.
            bright: The image is a bright-field slide.

        Raises:
            ConfigError: Something does not fit; names it.
        """
        chosen = Options.of(config, **options)
        scale, notes = _scale(config, image, request)
        own = config.preprocess
        tile = max(1, round(request.tile / scale))
        overlap = min(round(request.overlap / scale), tile // 2)
        zoom = own.zoom * scale
        if own.short_side is not None:  # a tile is an image of its own to such a model
            zoom = own.short_side / min(tile, *image.shape)
        grid = TileGrid(image.shape, tile, overlap, alignment(zoom))
        side = round(min(tile, max(image.shape)) * zoom)
        if not 1 <= side <= MOST_SIDE:
            raise ConfigError(
                f"tile is {request.tile}; the network would see {side} pixels, allowed are 1 to "
                f"{MOST_SIDE}"
            )
        level = _level(image, zoom / own.zoom if own.short_side is None else zoom)
        skip = request.skip
        if skip == "auto":
            skip = "tissue" if bright else "flat"
        return cls(
            grid=grid,
            scale=scale,
            zoom=zoom,
            level=level,
            size=image.sizes[level],
            shrunk=image.levels[level],
            options=chosen,
            whole=own.long_side**2,
            skip=skip,
            notes=tuple(notes),
        )

    def window(self, rect: Rect) -> tuple[int, int, int, int]:
        """(y, x, height, width) of a rectangle of level 0 in the level that is read.

        Each axis has its own ratio, as sizes of levels are rounded: 9003 columns become 2250 or
        2251, as the writer of the file likes it.
        """
        starts, lengths = [], []
        for first, last, side, small in zip(
            rect[:2], rect[2:], self.grid.shape, self.size, strict=True
        ):
            start = min(round(first * small / side), small - 1)
            starts.append(start)
            lengths.append(max(start + 1, round(last * small / side)) - start)
        return starts[0], starts[1], lengths[0], lengths[1]

    def options_of(self, size: tuple[int, int]) -> Options:
        """The options of a tile of (height, width): proposals and detections grow with its area.

        The model's number is for the largest image that it takes whole (long side squared, of the
        network's input); larger tiles have more in proportion, smaller ones as many.
        """
        factor = max(1.0, size[0] * size[1] * self.zoom**2 / self.whole)
        more = {
            name: min(MOST_PROPOSALS, math.ceil(getattr(self.options, name) * factor))
            for name in ("proposals", "max_detections")
        }
        return self.options.model_copy(update=more)


def _scale(config: Config, image: WindowedImage, request: TileRequest) -> tuple[float, list[str]]:
    """Pixels at the model's scale per pixel of level 0, and how that came about."""
    own = config.preprocess
    scale, why = 1.0, ""
    mpp = request.mpp if request.mpp is not None else image.mpp
    if request.level is not None:
        if request.level >= len(image.levels):
            raise ConfigError(
                f"level is {request.level}, but {image.name} has {len(image.levels)}, counted "
                "from 0"
            )
        scale = 1 / image.levels[request.level]
        why = f"level {request.level} is taken as the model's scale"
    elif request.object_size is not None:
        if own.object_size is None:
            raise ConfigError(
                "object_size is given, but the model does not say how large its objects are; set "
                "preprocess.object_size (pixels) in its config.json, or choose a level"
            )
        scale = own.object_size / request.object_size
        why = f"objects of {request.object_size:g} pixels, of {own.object_size:g} for the model"
    elif mpp is not None and own.mpp is not None:
        scale = mpp / own.mpp
        why = f"{mpp:g} micrometres per pixel, {own.mpp:g} for the model"
    elif request.mpp is not None:
        raise ConfigError(
            f"mpp is {request.mpp:g}, but the model knows no scale in micrometres (preprocess.mpp "
            "in its config.json); give object_size, the objects' diameter in pixels, instead"
        )
    elif mpp is not None and len(image.levels) > 1:
        return 1.0, [
            f"{image.name}: has {mpp:.3g} micrometres per pixel, but the model knows no scale in "
            "micrometres; it looks at the finest level as it is. Give --object-size, the objects' "
            "diameter in pixels, where they are not as large as in its training images"
        ]
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise ConfigError(
            f"{why}: tiles would be resized {scale:.3g} times; allowed is up to "
            f"{LARGEST_SCALE:g} times in either direction"
        )
    return scale, [f"{image.name}: tiles are resized {scale:.3g} times ({why})"] if why else []


def _level(image: WindowedImage, scale: float) -> int:
    """The coarsest level that is not coarser than what is asked for."""
    fine = [i for i, shrunk in enumerate(image.levels) if shrunk <= 1.01 / scale]
    return max(fine, default=0, key=lambda i: image.levels[i])
