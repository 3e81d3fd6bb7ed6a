"""At which scale, from which level, and with how many proposals is a tile looked at?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from diffinst.config import Config, ConfigError
from diffinst.inference.tile_plan import TilePlan, TileRequest


@dataclass
class Image:
    """A windowed image that is never read."""

    shape: tuple[int, int] = (4000, 6000)
    sizes: tuple[tuple[int, int], ...] = ((4000, 6000), (1000, 1500), (250, 375))
    levels: tuple[float, ...] = (1.0, 4.0, 16.0)
    mpp: float | None = None
    name: str = "slide.tif"
    transform: tuple[float, float, float, float, float, float] | None = None
    crs: str | None = None
    notes: tuple[str, ...] = ()

    def read(self, y: int, x: int, height: int, width: int, level: int = 0) -> NDArray[np.uint8]:
        return np.zeros((height, width, 3), np.uint8)

    def close(self) -> None:
        return None


def config(**preprocess: object) -> Config:
    own = {"short_side": None, "zoom": 2.0, "long_side": 1000, **preprocess}
    return Config.model_validate({"preprocess": own})


def plan(config: Config, image: Image, **request: object) -> TilePlan:
    asked = TileRequest(**request)  # type: ignore[arg-type]
    return TilePlan.of(config, image, asked, {}, bright=False)


def test_nothing_said_is_the_models_own_zoom() -> None:
    found = plan(config(), Image())
    assert (found.scale, found.zoom, found.level, found.grid.tile) == (1.0, 2.0, 0, 1024)


def test_object_size_scales_tiles_and_picks_a_level() -> None:
    found = plan(config(object_size=20.0), Image(), object_size=80.0)
    assert (found.scale, found.zoom, found.level, found.shrunk) == (0.25, 0.5, 1, 4.0)
    assert (found.grid.tile, found.grid.tile - found.grid.step) == (4096, 512)
    assert "resized 0.25 times" in found.notes[0]


def test_micrometres_of_the_file_and_those_that_are_given() -> None:
    assert plan(config(mpp=0.5), Image(mpp=0.25)).scale == 0.5
    assert plan(config(mpp=0.5), Image(mpp=0.25), mpp=1.0).scale == 2.0
    assert plan(config(mpp=0.5), Image(mpp=0.25), mpp=1.0).level == 0


def test_a_level_is_taken_as_the_models_scale() -> None:
    found = plan(config(), Image(), level=2)
    assert (found.scale, found.level) == (1 / 16, 2)


def test_windows_of_a_level_have_a_ratio_per_axis_and_stay_inside() -> None:
    halved = Image((8000, 9003), ((8000, 9003), (4000, 4501), (2000, 2250)), (1.0, 2.0002, 4.0013))
    found = plan(config(), halved, level=2, tile=500, overlap=100)
    windows = [found.window(tile.rect) for tile in found.grid.row(found.grid.rows - 1)]
    assert found.window((6400, 0, 8000, 2001)) == (1600, 0, 400, 500)
    assert max(y + height for y, _, height, _ in windows) == 2000
    assert max(x + width for _, x, _, width in windows) == 2250

    strip = Image((1001, 40_000), ((1001, 40_000), (62, 2500)), (1.0, 16.0))
    assert plan(config(), strip, level=1).window((0, 32_000, 1001, 40_000)) == (0, 2000, 62, 500)
    assert plan(config(), strip, level=1).window((1000, 39_999, 1001, 40_000)) == (61, 2499, 1, 1)


def test_a_file_with_micrometres_that_the_model_does_not_know_is_told() -> None:
    assert "--object-size" in plan(config(), Image(mpp=0.25)).notes[0]


def test_proposals_grow_with_the_area_beyond_what_the_model_takes_whole() -> None:
    found = plan(config(), Image())
    most = found.options.proposals
    assert found.options_of((500, 500)).proposals == most  # 1000 x 1000 of the network's input
    assert found.options_of((1000, 1000)).proposals == 4 * most
    assert found.options_of((1000, 500)).max_detections == 2 * found.options.max_detections
    assert found.options_of((10, 500)).proposals == most


def test_a_model_that_sees_each_image_at_one_size_sees_each_tile_so() -> None:
    found = plan(config(short_side=800), Image())
    assert math.isclose(found.zoom, 800 / 1024)


@pytest.mark.parametrize(
    ("own", "asked", "message"),
    [
        ({}, {"object_size": 80.0}, "preprocess.object_size"),
        ({}, {"mpp": 0.5}, "preprocess.mpp"),
        ({}, {"level": 3}, "level is 3, but slide.tif has 3"),
        ({"object_size": 20.0}, {"object_size": 5000.0}, "resized 0.004 times"),
        ({}, {"object_size": 0.0}, "object_size is 0.0"),
        ({}, {"level": 1, "object_size": 8.0}, "level is 1 and object_size 8"),
        ({}, {"level": -1}, "counted from 0"),
        ({}, {"batch": 0}, "batch is 0"),
        ({}, {"tile": 100, "overlap": 128}, "tile is 100 and overlap 128"),
        ({}, {"tile": 60_000}, "the network would see"),
    ],
)
def test_what_does_not_fit_is_named(
    own: dict[str, object], asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(config(**own), Image(shape=(60_000, 60_000)), **asked)
