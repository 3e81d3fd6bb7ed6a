"""Whether tiles give the answer of the whole image, and what an image of any size costs.

    python benchmarks/tiles.py seams --data DATA --out benchmarks/results/tiles.json
    python benchmarks/tiles.py memory --data DATA --out benchmarks/results/tiles.json

`seams` lays val images side by side and asks for the mosaic at once and in tiles, at the same zoom
and with as many proposals per area. `memory` writes large TIFFs on disk, tile by tile: empty but
for real images at known places, and runs `diffinst predict --tiles` on each in a child process.
Each command fills its own part of the JSON. Times are CPU seconds: they are the same on a busy
machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cyclopts import App
from numpy.typing import NDArray

from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.images import read_image
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

app = App()
Pixels = NDArray[np.uint8]
FIELD = 256  # pixels per side of a filled place
EVERY = 10_000  # pixels: one filled place in each square of this side
TIFF_TILE = 512
GIB = 2**20  # KiB, in which Linux counts resident memory


def mosaic(files: list[Path], size: tuple[int, int], seed: int = 0) -> Pixels:
    """Images side by side, in rows 256 pixels apart, cut at the right and at the bottom."""
    order = np.random.default_rng(seed).permutation(len(files)).tolist()
    canvas = np.zeros((*size, 3), np.uint8)
    y, k = 0, 0
    while y < size[0]:
        x = 0
        while x < size[1]:
            image = read_image(files[order[k % len(files)]])
            height, width = min(image.shape[0], size[0] - y), min(image.shape[1], size[1] - x)
            canvas[y : y + height, x : x + width] = image[:height, :width]
            x, k = x + width, k + 1
        y += FIELD
    return canvas


def at_once(model: DiffusionInst, image: Pixels, steps: int, seed: int) -> Instances:
    """The whole image in one pass, not made smaller, with proposals in proportion to its area."""
    own = model.config.preprocess
    preprocess = own.model_copy(update={"long_side": 65_535})
    config: Config = model.config.model_copy(update={"preprocess": preprocess})
    factor = max(1.0, image.shape[0] * image.shape[1] * own.zoom**2 / own.long_side**2)
    proposals = round(model.config.sampler.proposals * factor)
    return DiffusionInst(model.network, config).predict(
        image, steps=steps, seed=seed, proposals=proposals, max_detections=100_000
    )


def best_overlaps(wanted: CroppedMasks, found: CroppedMasks) -> NDArray[np.float64]:
    """(n,) the largest mask IoU that each wanted mask has with one that was found."""
    return np.array([max((s[0] for s in shares), default=0.0) for shares in _shares(wanted, found)])


def twice(parts: list[Instances]) -> int:
    """Pairs of masks of different parts that share more than half of the smaller one."""
    count = 0
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            pairs = _shares(part.mask_crops, other.mask_crops)
            count += sum(share[1] > 0.5 for shares in pairs for share in shares)
    return count


def _shares(first: CroppedMasks, second: CroppedMasks) -> Iterator[list[tuple[float, float]]]:
    """For each mask of the first its (IoU, intersection over smaller) with those it touches."""
    others = [(y, x, mask) for (y, x), mask in second.placed() if mask.any()]
    rects = np.array([[y, x, y + m.shape[0], x + m.shape[1]] for y, x, m in others]).reshape(-1, 4)
    for (y, x), mask in first.placed():
        y1, x1 = y + mask.shape[0], x + mask.shape[1]
        near = (rects[:, 0] < y1) & (rects[:, 2] > y) & (rects[:, 1] < x1) & (rects[:, 3] > x)
        shares = []
        for k in np.flatnonzero(near).tolist() if mask.any() else []:
            oy, ox, other = others[k]
            top, left = max(y, oy), max(x, ox)
            bottom, right = min(y1, oy + other.shape[0]), min(x1, ox + other.shape[1])
            mine = mask[top - y : bottom - y, left - x : right - x]
            both = int((mine & other[top - oy : bottom - oy, left - ox : right - ox]).sum())
            areas = int(mask.sum()), int(other.sum())
            shares.append((both / (sum(areas) - both), both / min(areas)))
        yield shares


@app.command
def seams(
    *,
    data: Path,
    out: Path,
    model: str = "nano-nuclei",
    size: tuple[int, int] = (768, 1280),
    tile: int = 512,
    overlap: int = 128,
    steps: int = 4,
    seed: int = 0,
) -> None:
    """Compare tiles with the whole image, and the whole image with itself under another seed."""
    loaded = DiffusionInst.from_pretrained(model)
    image = mosaic(_files(data), size, seed)
    begin = time.process_time()
    whole = at_once(loaded, image, steps, seed=0)
    middle = time.process_time()
    tiles = loaded.predict_tiles(image, tile=tile, overlap=overlap, steps=steps)
    parts = [*tiles]
    end = time.process_time()
    joined = Instances.cat(parts or [Instances.empty(whole.image_size, whole.class_names)])
    again = at_once(loaded, image, steps, seed=1)
    found = best_overlaps(whole.mask_crops, joined.mask_crops)
    repeated = best_overlaps(whole.mask_crops, again.mask_crops)
    rows = {}
    for score in (0.6, 0.7, 0.75, 0.8):
        chosen = whole.scores.numpy() >= score
        rows[f"{score}"] = {
            "instances": int(chosen.sum()),
            "found_in_tiles": _fractions(found[chosen]),
            "found_whole_with_another_seed": _fractions(repeated[chosen]),
        }
    counts = tiles.counts
    _put(out, f"seams_{size[0]}x{size[1]}_tile{tile}_steps{steps}_seed{seed}", {
        "model": model, "size": list(size), "tile": tile, "overlap": overlap, "steps": steps,
        "whole": len(whole), "in_tiles": len(joined),
        "found_by_two_tiles": twice(parts), "tiles": counts.tiles,
        "duplicates_dropped": counts.seams.duplicates, "stitched": counts.seams.stitched,
        "by_score_in_the_whole": rows,
        "cpu_seconds": {"whole": round(middle - begin, 1), "tiles": round(end - middle, 1)},
    })  # fmt: skip


@app.command
def memory(
    *,
    data: Path,
    out: Path,
    folder: Path,
    sides: tuple[int, ...] = (10_000, 40_000),
    model: str = "nano-nuclei",
) -> None:
    """Peak memory and CPU seconds of the command on images of several sizes.

    Most tiles are empty, and passed over: one place in 10,000 x 10,000 pixels is filled.
    """
    grey = [file for file in _files(data) if _is_dark(file)]
    rows = []
    for side in sides:
        image, target = folder / f"{side}.tif", folder / f"out-{side}"
        places = write_image(image, side, grey)
        command = [
            sys.executable, "-m", "diffinst", "predict", str(image), "--tiles", "--model", model,
            "--out", str(target), "--device", "cpu",
        ]  # fmt: skip
        begin = time.perf_counter()
        child = subprocess.Popen(command)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
        parts = [np.load(part) for part in sorted((target / "parts").glob("row-*.npz"))]
        tiles = sum(len(part["counts"]) for part in parts)
        skipped = sum(int(part["skipped"]) for part in parts)
        rows.append({
            "side": side, "megabytes_on_disk": round(image.stat().st_size / 1e6, 1),
            "gigabytes_as_rgb": round(side * side * 3 / 1e9, 2), "filled_places": len(places),
            "tiles_predicted": tiles - skipped, "tiles_empty": skipped,
            "peak_rss_gib": round(usage.ru_maxrss / GIB, 2),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "wall_seconds": round(time.perf_counter() - begin, 1),
            **_found_in(target / "instances.jsonl", places),
        })  # fmt: skip
        _put(out, "memory", {"model": model, "steps": 1, "tile": 1024, "overlap": 128,
                             "filled": "one 256 x 256 image of nuclei in each 10,000 x 10,000 "
                             "pixels, the rest is empty", "runs": rows})  # fmt: skip


def write_image(path: Path, side: int, files: list[Path]) -> list[tuple[int, int, Path]]:
    """A square grey TIFF in deflated tiles, empty but for an image in the middle of each square.

    Returns:
        y, x and file of each filled place.
    """
    from tifffile import imwrite

    empty = zlib.compress(bytes(TIFF_TILE * TIFF_TILE), 6)
    count, tiles = max(1, side // EVERY), -(-side // TIFF_TILE)
    middles = [(2 * i + 1) * side // (2 * count) // TIFF_TILE for i in range(count)]
    places = {
        (row, column): files[k % len(files)]
        for k, (row, column) in enumerate((r, c) for r in middles for c in middles)
    }
    at = (TIFF_TILE - FIELD) // 2

    def blocks() -> Iterator[bytes]:
        for row in range(tiles):
            for column in range(tiles):
                file = places.get((row, column))
                if file is None:
                    yield empty
                    continue
                block = np.zeros((TIFF_TILE, TIFF_TILE), np.uint8)
                block[at : at + FIELD, at : at + FIELD] = read_image(file)[:FIELD, :FIELD, 0]
                yield zlib.compress(block.tobytes(), 6)

    path.parent.mkdir(parents=True, exist_ok=True)
    imwrite(
        path,
        blocks(),
        shape=(side, side),
        dtype=np.uint8,
        tile=(TIFF_TILE, TIFF_TILE),
        compression="zlib",
        photometric="minisblack",
    )
    return [(r * TIFF_TILE + at, c * TIFF_TILE + at, file) for (r, c), file in places.items()]


def _is_dark(file: Path) -> bool:
    pixels = read_image(file)
    return pixels.shape[:2] == (FIELD, FIELD) and float(pixels.mean()) < 60


def _found_in(lines: Path, places: list[tuple[int, int, Path]]) -> dict[str, object]:
    """How many objects lie in the filled places, and how many elsewhere."""
    boxes = [json.loads(line)["window"] for line in lines.read_text().splitlines()]
    inside = sum(
        any(y <= top < y + FIELD and x <= left < x + FIELD for y, x, _ in places)
        for top, left, _, _ in boxes
    )
    return {"objects_in_filled_places": inside, "objects_elsewhere": len(boxes) - inside}


def _fractions(overlaps: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        f"iou_{iou}": round(float((overlaps >= iou).mean()), 4) if len(overlaps) else None
        for iou in (0.5, 0.75, 0.9)
    }


def _files(data: Path) -> list[Path]:
    return [record.path for record in load_split(data, "val").records]


def _put(out: Path, name: str, value: object) -> None:
    """One part of the JSON; the others stay."""
    known = json.loads(out.read_text()) if out.is_file() else {}
    known["machine"] = f"{platform.machine()}, {platform.system()}, busy with other work"
    known[name] = value
    write_json(out, known)
    print(json.dumps({name: value}, indent=2))


if __name__ == "__main__":
    app()
