"""Predicts an image of any size tile by tile; the objects come as they are decided."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from diffinst.config import Config, ConfigError, OptionFields, Options, Reading
from diffinst.inference.pieces import Piece, as_instances, pieces_of
from diffinst.inference.runner import Runner
from diffinst.inference.seams import SeamCounts, Seams
from diffinst.inference.sources import path_of
from diffinst.inference.tile_grid import Tile, has_tissue, is_flat
from diffinst.inference.tile_plan import MOST_SIDE, TilePlan, TileRequest
from diffinst.io.images import ImageSource
from diffinst.io.windows import WindowedImage, is_bright_field, open_windowed
from diffinst.results.geojson import write_geojson
from diffinst.results.instances import Instances
from diffinst.results.labels import write_labels

Pixels = NDArray[np.uint8]
Found = list[list[Piece]]
"""Of each tile of a row."""


@dataclass
class TileCounts:
    """How far a run is.

    Attributes:
        tiles: Seen by the network.
        skipped: Passed over, as nothing is in them.
        seams: What was decided at seams.
    """

    tiles: int = 0
    skipped: int = 0
    seams: SeamCounts = field(default_factory=SeamCounts)

    def lines(self) -> list[str]:
        """What is to be told at the end."""
        said = [
            f"{self.seams.objects} objects in {self.tiles} tiles, {self.skipped} empty tiles "
            "passed over"
        ]
        if self.seams.stitched:
            said.append(
                f"{self.seams.stitched} objects larger than the overlap were stitched of pieces; "
                "a larger --overlap, or a coarser --level, sees them whole"
            )
        if self.seams.cut:
            said.append(f"{self.seams.cut} objects are cut by the border of a tile")
        if self.seams.in_pieces:
            said.append(f"{self.seams.in_pieces} seams of objects too large to stitch are left")
        return said


class TiledPrediction:
    """An iterator of `Instances` in pixels of the whole image: those of a tile at a time.

    About two rows of tiles are in memory, and never a mask larger than its object. It closes its
    image at the end, or as a context manager.

    Args:
        runner: Of the model.
        image: What is predicted.
        plan: How.
        batch: Tiles that go through the network together; None: as the device does best.
        kept: Gives the pieces of a row of tiles that an earlier run has found; None: none has.
        keep: Gets the pieces of each new row.
        progress: Called with (tiles done, tiles in all).
        close: The image, at the end.
        source: The file that is read, which is never written over; None: it is none.

    Attributes:
        counts: How far it is.
        notes: What is to be told of image and scale.
    """

    def __init__(
        self,
        runner: Runner,
        image: WindowedImage,
        plan: TilePlan,
        *,
        batch: int | None = None,
        kept: Callable[[Sequence[Tile]], tuple[Found, int] | None] = lambda tiles: None,
        keep: Callable[[Sequence[Tile], Found, int], None] = lambda tiles, found, skipped: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        close: bool = True,
        source: Path | None = None,
    ) -> None:
        self.source = source
        self.image, self.plan, self.counts = image, plan, TileCounts()
        self.notes = (*image.notes, *plan.notes)
        self.shape, self.class_names = image.shape, runner.network.config.names
        self._runner = Runner(runner.network, _zoomed(runner.config, plan), runner.launch)
        self._owned = close
        self._batch, self._kept, self._keep, self._progress = batch, kept, keep, progress
        self._reader = ThreadPoolExecutor(1, "windows")  # one: files are not read by several
        self._results = self._decided()

    def __iter__(self) -> Iterator[Instances]:
        return self

    def __next__(self) -> Instances:
        """The objects of the next tile that has any."""
        return next(self._results)

    def __enter__(self) -> TiledPrediction:
        """Nothing: it closes at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def to_geojson(self, path: str | Path) -> int:
        """Write all that is to come as QuPath's GeoJSON, in map coordinates if there are any.

        Returns how many objects were written; the iterator is at its end then.
        """
        self._refuse_source(path)
        return write_geojson(Path(path), self, self.image.transform, self.image.crs)

    def write_labels(self, path: str | Path) -> int:
        """Write all that is to come as a label image, .zarr or .tif; see `results.labels`."""
        self._refuse_source(path)
        return write_labels(path, self, self.shape, self.image.mpp)

    def _refuse_source(self, path: str | Path) -> None:
        if self.source is not None and Path(path).resolve() == self.source.resolve():
            raise ValueError(f"{path}: is the image that is read; name another file to write")

    def close(self) -> None:
        """Stop, and let go of the image."""
        self._results.close()
        self._end()

    def _end(self) -> None:
        self._reader.shutdown(cancel_futures=True)
        if self._owned:
            self.image.close()

    def _decided(self) -> Generator[Instances, None, None]:
        seams = Seams(self.plan.grid)
        self.counts.seams = seams.counts
        try:
            for pieces in seams.decided(self._rows()):
                yield as_instances(pieces, self.shape, self.class_names)
        finally:
            self._end()

    def _rows(self) -> Iterator[tuple[list[Tile], Found]]:
        grid, done = self.plan.grid, 0
        for number in range(grid.rows):
            tiles = grid.row(number)
            known = self._kept(tiles)
            if known is None:
                found, skipped = self._row(tiles, done)
                self._keep(tiles, found, skipped)
            else:
                found, skipped = known
            done += len(tiles)
            self.counts.tiles += len(tiles) - skipped
            self.counts.skipped += skipped
            self._progress(done, len(grid))
            yield tiles, found

    def _row(self, tiles: list[Tile], done: int) -> tuple[Found, int]:
        """What the network finds in a row, and how many of its tiles were passed over."""
        found: Found = [[] for _ in tiles]
        waiting: list[tuple[Tile, Pixels]] = []
        skipped = 0
        ahead: Future[Pixels] | None = self._reader.submit(self._read, tiles[0])
        for tile in tiles:
            assert ahead is not None
            pixels = ahead.result()
            after = tiles[tile.column + 1 : tile.column + 2]
            ahead = self._reader.submit(self._read, after[0]) if after else None
            if self._is_empty(pixels):
                skipped += 1
            else:
                if waiting and waiting[0][0].size != tile.size:
                    self._predict(waiting, found)
                waiting.append((tile, pixels))
                if len(waiting) >= self._at_once(tile):
                    self._predict(waiting, found)
            self._progress(done + tile.column + 1 - len(waiting), len(self.plan.grid))
        self._predict(waiting, found)
        return found, skipped

    def _predict(self, waiting: list[tuple[Tile, Pixels]], found: Found) -> None:
        if not waiting:
            return
        tiles = [tile for tile, _ in waiting]
        options = self.plan.options_of(tiles[0].size)
        tensors = self._runner.upload([pixels for _, pixels in waiting])
        seeds = [tile.seed(options.seed) for tile in tiles]
        results = self._runner.predict(tensors, options, seeds, [tile.size for tile in tiles])
        for tile, result in zip(tiles, results, strict=True):
            found[tile.column] = pieces_of(result, tile, self.shape)
        waiting.clear()

    def _at_once(self, tile: Tile) -> int:
        if self._batch is not None:
            return self._batch
        height, width = (max(1, math.ceil(side / self.plan.shrunk)) for side in tile.size)
        return self._runner.at_once_of(self._runner.padded((height, width)))

    def _read(self, tile: Tile) -> Pixels:
        return self.image.read(*self.plan.window(tile.rect), self.plan.level)

    def _is_empty(self, pixels: Pixels) -> bool:
        match self.plan.skip:
            case "none":
                return False
            case "tissue":
                return is_flat(pixels) or not has_tissue(pixels)
            case _:
                return is_flat(pixels)


def check_options(config: Config, options: OptionFields) -> None:
    """Refuse what no tile can be predicted with.

    Raises:
        ConfigError: A value out of range, or a time limit; names it.
    """
    asked = Options.of(config, **options)
    if asked.seconds is not None:
        raise ConfigError(
            f"seconds is {asked.seconds:g}, but a time limit is for one image, not for tiles; omit "
            "it, or give steps and proposals"
        )


def start_tiles(
    runner: Runner,
    source: ImageSource | WindowedImage,
    request: TileRequest,
    reading: Reading,
    options: OptionFields,
    progress: Callable[[int, int], None],
) -> TiledPrediction:
    """Open an image, plan its tiles, and tell as warnings how it is read.

    Raises:
        ImageReadError: It cannot be read.
        ConfigError: A value out of range; names it.
    """
    check_options(runner.config, options)  # before a large file is looked at
    image = open_windowed(source, reading)
    try:
        bright = is_bright_field(source)
        plan = TilePlan.of(runner.config, image, request, options, bright=bright)
    except BaseException:
        image.close()
        raise
    found = TiledPrediction(
        runner, image, plan, batch=request.batch, progress=progress, source=path_of(source)
    )
    for text in found.notes:
        warnings.warn(text, stacklevel=3)
    return found


def _zoomed(config: Config, plan: TilePlan) -> Config:
    """The model's configuration, with every tile resized alike and none limited."""
    update = {"short_side": None, "zoom": plan.zoom * plan.shrunk, "long_side": MOST_SIDE}
    preprocess = config.preprocess.model_copy(update=update)
    return config.model_copy(update={"preprocess": preprocess})
