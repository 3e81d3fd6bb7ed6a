"""Predicts one large image into a folder: rows of tiles are kept, and a killed run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from PIL import Image
from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields, Reading
from diffinst.inference.folder import refuse_file
from diffinst.inference.pieces import as_instances, packed, unpacked
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.seams import Seams
from diffinst.inference.tile_grid import Tile
from diffinst.inference.tile_plan import TilePlan, TileRequest
from diffinst.inference.tiles import Found, TileCounts, TiledPrediction, check_options
from diffinst.io.atomic import atomic_path, remove_unfinished, write_bytes, write_json
from diffinst.io.lock import alone_in
from diffinst.io.windows import WindowedImage, is_bright_field, open_windowed
from diffinst.results.geojson import write_geojson
from diffinst.results.instances import Instances
from diffinst.results.labels import write_labels
from diffinst.results.lines import write_lines
from diffinst.results.render.overview import SIDE, draw_outlines, shrunken

LabelImage = Literal["zarr", "tif", "none"]
_OWN = (
    *("instances.geojson", "instances.jsonl", "labels.zarr", "labels.tif", "overview.png"),
    *("parts", "run.json"),
)


@dataclass(frozen=True)
class TiledRun:
    """What a run did.

    Attributes:
        counts: Tiles, objects, seams.
        resumed: Rows of tiles that an earlier run had done.
        seconds: Wall clock.
        files: What was written.
        notes: What is to be told, a line each.
    """

    counts: TileCounts
    resumed: int
    seconds: float
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def predict_tile_folder(
    model: DiffusionInst,
    image: str | Path,
    out: str | Path,
    request: TileRequest,
    *,
    reading: Reading | None = None,
    label_image: LabelImage = "zarr",
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[OptionFields],
) -> TiledRun:
    """Segment an image of any size; started again after it was stopped, it goes on.

    Each row of tiles is kept in `out`/parts as soon as it is done. When all are there, the seams
    are decided and the results written, one after the other and each whole: instances.geojson,
    instances.jsonl (mask as run lengths in its window), labels.zarr or labels.tif, overview.png.

    Args:
        model: Does the work.
        image: A file, or an OME-Zarr folder.
        out: Gets all that.
        request: Tiles and scale.
        reading: As in `DiffusionInst.predict`.
        label_image: What kind is written.
        progress: Called with (done, total) after each tile.
        **options: As in `DiffusionInst.predict`.

    Raises:
        BlockingIOError: Another program is at work in `out`.
        ConfigError: A value out of range, or `out` holds a run with other settings; names them.
        ImageReadError: The image cannot be read; what is done stays.
    """
    begin = time.perf_counter()
    image, out = Path(image), Path(out)
    refuse_file(out)
    reading = (Reading() if reading is None else reading).over(model.config.preprocess)
    check_options(model.config, options)
    _refuse_own(image, out)
    opened = open_windowed(image, reading)
    try:
        bright = is_bright_field(image)
        plan = TilePlan.of(model.config, opened, request, options, bright=bright)
        with alone_in(out):
            parts = _Parts(out / "parts")
            for folder in (out, parts.folder):
                remove_unfinished(folder)
            _same_run(out / "run.json", _fingerprint(model, image, opened, plan, request, reading))
            counts, notes = _predicted(model, opened, plan, request, parts, progress)
            files = _written(out, opened, plan, parts, label_image, model.class_names)
    finally:
        opened.close()
    return TiledRun(counts, parts.resumed, time.perf_counter() - begin, files, notes)


def _refuse_own(image: Path, out: Path) -> None:
    """Refuse an image that the results would be written over."""
    if any(image.resolve().is_relative_to((out / name).resolve()) for name in _OWN):
        raise ConfigError(
            f"{image}: would be written over by the results in {out}; choose another --out"
        )


class _Parts:
    """The rows of tiles that are done, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.resumed = folder, 0

    def _file(self, tiles: Sequence[Tile]) -> Path:
        return self.folder / f"row-{tiles[0].row:05}.npz"

    def load(self, tiles: Sequence[Tile]) -> tuple[Found, int] | None:
        file = self._file(tiles)
        if not file.is_file():
            return None
        try:
            found = unpacked(file.read_bytes(), tiles)
        except (ValueError, IndexError, OSError) as error:
            raise ConfigError(
                f"{file}: is torn, or no part of this run; remove it, and its tiles are predicted "
                "anew"
            ) from error
        return found

    def resume(self, tiles: Sequence[Tile]) -> tuple[Found, int] | None:
        found = self.load(tiles)
        self.resumed += found is not None
        return found

    def save(self, tiles: Sequence[Tile], found: Found, skipped: int) -> None:
        write_bytes(self._file(tiles), packed(found, skipped))


def _predicted(
    model: DiffusionInst,
    image: WindowedImage,
    plan: TilePlan,
    request: TileRequest,
    parts: _Parts,
    progress: Callable[[int, int], None],
) -> tuple[TileCounts, tuple[str, ...]]:
    """Have all rows of tiles done."""
    run = TiledPrediction(
        model._runner(),
        image,
        plan,
        batch=request.batch,
        kept=parts.resume,
        keep=parts.save,
        progress=progress,
        close=False,
    )
    for _ in run:  # results are written from the parts, whole and one after the other
        pass
    return run.counts, (*run.notes, *run.counts.lines())


def _written(
    out: Path,
    image: WindowedImage,
    plan: TilePlan,
    parts: _Parts,
    label_image: LabelImage,
    names: tuple[str, ...],
) -> tuple[Path, ...]:
    def rows() -> Iterator[tuple[list[Tile], Found]]:
        for number in range(plan.grid.rows):
            tiles = plan.grid.row(number)
            kept = parts.load(tiles)
            assert kept is not None
            yield tiles, kept[0]

    def decided() -> Iterator[Instances]:
        for pieces in Seams(plan.grid).decided(rows()):
            yield as_instances(pieces, image.shape, names)

    files = [out / "instances.geojson", out / "instances.jsonl"]
    write_geojson(files[0], decided(), image.transform, image.crs)
    write_lines(files[1], decided())
    if label_image != "none":
        files.append(out / f"labels.{label_image}")
        write_labels(files[-1], decided(), image.shape, image.mpp)
    files.append(out / "overview.png")
    level = max(
        (i for i, shrunk in enumerate(image.levels) if max(image.shape) / shrunk >= SIDE),
        default=0,
        key=lambda i: image.levels[i],
    )
    shrunk = image.levels[level]
    small, factor = shrunken(image.sizes[level], lambda y, x, h, w: image.read(y, x, h, w, level))
    canvas = Image.fromarray(small)
    draw_outlines(canvas, decided(), 1 / (shrunk * factor))
    with atomic_path(files[-1]) as temporary:
        canvas.save(temporary, format="PNG")
    return tuple(files)


def _fingerprint(
    model: DiffusionInst,
    path: Path,
    image: WindowedImage,
    plan: TilePlan,
    request: TileRequest,
    reading: Reading,
) -> dict[str, object]:
    """All that the results depend on."""
    size, changed = _state(path)
    asked = {key: value for key, value in asdict(request).items() if key != "batch"}
    return {
        "image": str(path.resolve()),
        "size": list(image.shape),
        "bytes": size,
        "changed": changed,
        "weights": _weights_hash(model),
        "precision": model.precision,
        "device": model.device.type,
        "version": version("diffinst"),
        "tiles": {**asked, "skip": plan.skip},
        "scale": plan.scale,
        "options": plan.options.model_dump(mode="json"),
        "reading": reading.model_dump(mode="json"),
    }


def _state(path: Path) -> tuple[int, int | str]:
    """Bytes, and what is another after a change: a time, or of a folder's files a hash.

    A folder's own time stays when a file deep in it is written anew, as chunks of Zarr are.
    """
    if not path.is_dir():
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    size, digest = 0, sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            status = file.stat()
            size += status.st_size
            name = str(file.relative_to(path))
            digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    return size, digest.hexdigest()


def _weights_hash(model: DiffusionInst) -> str:
    digest = sha256(model.config.model_dump_json().encode())
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _same_run(file: Path, fingerprint: dict[str, object]) -> None:
    """Write down what the run depends on, or refuse a folder of another one."""
    if not file.is_file():
        write_json(file, fingerprint)
        return
    try:
        before = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: is damaged ({error}); choose another folder") from error
    now = json.loads(json.dumps(fingerprint))
    before = before if isinstance(before, dict) else {}
    keys = [key for key in now if before.get(key) != now[key]]
    if keys:
        was, here = before.get(keys[0]), now[keys[0]]
        if isinstance(was, dict) and isinstance(here, dict):  # only what differs of many
            differing = [key for key in here if was.get(key) != here[key]]
            was, here = ({key: one.get(key) for key in differing} for one in (was, here))
        raise ConfigError(
            f"{file.parent}: holds another run: {keys[0]} was {was}, is {here} now (differing: "
            f"{', '.join(keys)}); choose another --out, or remove the folder to start anew"
        )
