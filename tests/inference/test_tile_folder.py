"""Does a stopped run go on to the very same files, and is another run's folder refused?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst import DiffusionInst
from diffinst.config import ConfigError
from diffinst.inference.tile_folder import TiledRun, predict_tile_folder
from diffinst.inference.tile_plan import TileRequest
from diffinst.io.images import ImageReadError
from diffinst.io.lock import alone_in

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
REQUEST = TileRequest(tile=96, overlap=32)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine discs on a dark ground, one of them on a seam."""
    image = np.full((150, 150), 12, np.uint8)
    rows, columns = np.ogrid[:150, :150]
    for y in (20, 80, 125):
        for x in (25, 78, 130):
            image[(rows - y) ** 2 + (columns - x) ** 2 < 64] = 150
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, image, tile=(64, 64), compression="zlib")
    return path


def run(
    model: DiffusionInst,
    slide: Path,
    out: Path,
    request: TileRequest = REQUEST,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: int,
) -> TiledRun:
    return predict_tile_folder(model, slide, out, request, progress=progress, **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_all_files_hold_the_same_objects(nano: DiffusionInst, slide: Path, tmp_path: Path) -> None:
    done = run(nano, slide, tmp_path)
    count = done.counts.seams.objects
    assert count >= 9
    collection = json.loads((tmp_path / "instances.geojson").read_text())
    assert len(collection["features"]) == count
    lines = (tmp_path / "instances.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [*range(1, count + 1)]
    labels = zarr.open_group(tmp_path / "labels.zarr", mode="r")["0"][:]
    assert labels.shape == (150, 150) and labels.max() <= count
    assert {file.name for file in done.files} | {"parts", "run.json"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_a_stopped_run_goes_on_to_the_same_bytes(
    nano: DiffusionInst, slide: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:  # in the second row
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(nano, slide, tmp_path / "stopped", progress=stop)
    assert sorted(contents(tmp_path / "stopped")) == ["parts/row-00000.npz", "run.json"]
    assert run(nano, slide, tmp_path / "stopped").resumed == 1
    assert run(nano, slide, tmp_path / "whole").resumed == 0
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert run(nano, slide, tmp_path / "whole").resumed == 2
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_levels_whose_sides_were_halved_and_cut_off_are_read_to_their_end(
    nano: DiffusionInst, tmp_path: Path
) -> None:
    """One disc at the right border of 200 x 4503, of which level 2 has 50 x 1125, not 1126."""
    image = np.full((200, 4503), 12, np.uint8)
    rows, columns = np.ogrid[:200, :4503]
    image[(rows - 100) ** 2 + (columns - 4440) ** 2 < 32**2] = 150
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as file:
        shared = {"tile": (64, 64), "compression": "zlib"}
        file.write(image, subifds=2, **shared)
        file.write(image[::2, :4502:2], subfiletype=1, **shared)
        file.write(image[::4, :4500:4], subfiletype=1, **shared)
    request = TileRequest(tile=96, overlap=32, level=2)
    done = run(nano, path, tmp_path / "out", request)
    assert done.counts.seams.objects >= 1
    with Image.open(tmp_path / "out" / "overview.png") as overview:
        assert overview.size == (1126, 50)  # of level 1, of 2251 columns
    labels = zarr.open_group(tmp_path / "out" / "labels.zarr", mode="r")["0"][:]
    found = np.argwhere(labels)
    assert np.allclose(found.mean(0), (100, 4440), atol=8)  # two pixels of the level


def test_another_run_is_refused_and_says_what_differs(
    tiny: DiffusionInst, slide: Path, tmp_path: Path
) -> None:
    run(tiny, slide, tmp_path)
    with pytest.raises(ConfigError, match=r"another run: options was .*--out"):
        run(tiny, slide, tmp_path, seed=1)
    with pytest.raises(ConfigError, match=r"tiles was \{'[a-z_]+': [^,]+\}, is"):
        run(tiny, slide, tmp_path, TileRequest(tile=96, overlap=16))
    with pytest.raises(ConfigError, match="another run: weights was"):
        run(DiffusionInst.from_preset("tiny", seed=1), slide, tmp_path)


@pytest.mark.parametrize("name", ["overview.png", "labels.tif", "parts/a.png"])
def test_an_image_is_not_written_over_by_its_results(
    tiny: DiffusionInst, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (96, 96)).save(file)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=rf"{file.name}: would be written over .* --out"):
        run(tiny, file, tmp_path)
    assert file.read_bytes() == before and not (tmp_path / "run.json").exists()


def test_a_folder_whose_chunks_were_written_anew_is_another_image(
    tiny: DiffusionInst, tmp_path: Path
) -> None:
    path = tmp_path / "cells.zarr"
    array = zarr.open_array(path, mode="w", shape=(150, 150), chunks=(64, 64), dtype="u1")
    array[:] = 12
    chunk = max(file for file in path.rglob("*") if file.is_file() and file.suffix != ".json")
    folder = path.stat()
    run(tiny, path, tmp_path / "out")
    assert run(tiny, path, tmp_path / "out").resumed == 2
    os.utime(chunk, ns=(0, 0))
    assert path.stat().st_mtime_ns == folder.st_mtime_ns
    with pytest.raises(ConfigError, match=r"another run: .*changed.*--out"):
        run(tiny, path, tmp_path / "out")


def test_a_time_limit_is_not_for_tiles(tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny")
    with pytest.raises(ConfigError, match=r"seconds is 0\.5, but a time limit is for one image"):
        predict_tile_folder(model, "missing.tif", tmp_path / "out", REQUEST, seconds=0.5)
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_is_named_and_what_is_done_stays(
    tiny: DiffusionInst, tmp_path: Path
) -> None:
    path = tmp_path / "cut.tif"
    noise = np.random.default_rng(0).integers(0, 256, (300, 100), np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), compression="zlib")
    path.write_bytes(path.read_bytes()[:-1_500])
    with pytest.raises(ImageReadError, match=r"cut\.tif: window y 192, x 0, "):
        run(tiny, path, tmp_path / "out")
    kept = sorted(file.name for file in (tmp_path / "out" / "parts").iterdir())
    assert kept == ["row-00000.npz", "row-00001.npz", "row-00002.npz"]


def test_a_damaged_part_is_named(tiny: DiffusionInst, slide: Path, tmp_path: Path) -> None:
    run(tiny, slide, tmp_path)
    part = tmp_path / "parts" / "row-00001.npz"
    whole = part.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"NUMPY") + 130] ^= 1  # of the first array
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes(flipped), b"", b"torn"):
        part.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"row-00001\.npz: is torn, .* remove it"):
            run(tiny, slide, tmp_path)


def test_one_program_at_a_time(tiny: DiffusionInst, slide: Path, tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(BlockingIOError, match="another program"):
        run(tiny, slide, tmp_path)


def test_an_image_with_nothing_in_it_gives_empty_files(tiny: DiffusionInst, tmp_path: Path) -> None:
    path = tmp_path / "empty.tif"
    tifffile.imwrite(path, np.zeros((150, 150), np.uint8), tile=(64, 64))
    done = predict_tile_folder(tiny, path, tmp_path / "out", REQUEST, label_image="tif")
    assert (done.counts.tiles, done.counts.skipped, done.counts.seams.objects) == (0, 4, 0)
    assert tifffile.imread(tmp_path / "out" / "labels.tif").max() == 0
    assert (tmp_path / "out" / "instances.jsonl").read_text() == ""
