"""Do the parts come out as what `diffinst predict --as` writes, read by the formats' own tools?"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from diffinst.config import OptionFields, Reading
from diffinst.inference.folder import predict_folder
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.image_error import ImageReadError
from diffinst.results.formats.choose import FormatName
from diffinst.scale.fingerprint import Run, save
from diffinst.scale.inputs import Entry, Inputs
from diffinst.scale.merge import MERGED, Merged, merge_run, result_of
from diffinst.scale.messages import Instance, Item, Row
from diffinst.scale.place import place
from diffinst.scale.plan import Plan, write_plan
from diffinst.scale.remote import filesystem
from diffinst.scale.rows import TornPart, name_of, write_part
from diffinst.scale.worker import row_of

FORMATS: tuple[FormatName, ...] = get_args(FormatName)
SMALL: OptionFields = {"proposals": 6, "max_detections": 3, "threshold": 0.0, "seed": 3}
NEEDED = ("skimage", "tifffile", "roifile")


def test_coco_is_read_by_its_own_library(finished: Path) -> None:
    merged = merge_run(finished, ["coco"])
    assert merged == Merged({"coco": finished / "coco.json"}, images=4, failed=1, blind=0)
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(finished / "coco.json"))
    images = {image["id"]: image["file_name"] for image in coco.loadImgs(coco.getImgIds())}
    assert images == {1: "a.png", 2: "b.png", 4: "d.png", 5: "e.png"}  # 3 could not be read
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cat", "dog"]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [sum(a["image_id"] == i for a in annotations) for i in range(1, 6)] == [1, 2, 0, 3, 4]
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 2:5] = 1
    for annotation in annotations:
        assert np.array_equal(coco.annToMask(annotation), expected)
        assert annotation["bbox"] == [2, 1, 3, 2] and annotation["area"] == 6


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of one stem, one with a size of its pixels, a broken one, one below."""
    folder = tmp_path / "in"
    (folder / "z").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[1]).save(folder / "a.tif", resolution=20_000, resolution_unit="cm")
    (folder / "b.png").write_bytes(b"no image")
    Image.fromarray(pixels[2]).save(folder / "z" / "c.png")
    return folder


def begun(
    out: Path,
    listed: Iterable[Entry],
    reading: dict[str, object] | None = None,
    classes: tuple[str, ...] = ("cat",),
) -> tuple[Plan, str]:
    """The plan of a run in shards of 3 that has no part yet, and its fingerprint."""
    planned = write_plan(place(out), listed)
    run = Run(
        weights="w", config="c", device="cpu", precision="fp32", options={}, reading=reading or {},
        seed=0, classes=classes, root=getattr(listed, "root", ""), images=planned.images,
        shard_size=3, plan=planned.digest,
    )  # fmt: skip
    return Plan(place(out), 3), save(place(out), run).fingerprint


def predicted(model: DiffusionInst, images: Path, out: Path) -> None:
    """A run over images, in shards of 3, with the seed that `predict_folder` takes for each."""
    reading = Reading().over(model.config.preprocess).model_dump(mode="json")
    plan, fingerprint = begun(out, Inputs.of(images), reading, model.class_names)
    items = [item for shard in range(plan.shards) for item in plan.shard(shard)]
    found = model.predict_each([images / item.path for item in items], **SMALL)
    rows = [row_of(item, one) for item, (_, one) in zip(items, found, strict=True)]
    for shard in range(plan.shards):
        write_part(place(out), shard, rows[3 * shard : 3 * shard + 3], fingerprint)


def content(folder: Path) -> dict[str, bytes]:
    """All files of the formats, by their path."""
    own = ("overlays", "masks", "parts", "results.json", "index.json", "run.json", "plan.parquet")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in own
    }


def test_every_format_is_what_predict_writes(images: Path, tmp_path: Path) -> None:
    for module in NEEDED:
        pytest.importorskip(module)
    model = DiffusionInst.from_preset("tiny")
    predict_folder(model, [images], tmp_path / "folder", formats=FORMATS, **SMALL)
    predicted(model, images, tmp_path / "run")
    merged = merge_run(tmp_path / "run", FORMATS)
    assert (merged.images, merged.failed, merged.blind) == (3, 1, 0)
    assert set(merged.files) == set(FORMATS)
    (tmp_path / "run" / MERGED).unlink()  # says which run they are of
    expected, written = content(tmp_path / "folder"), content(tmp_path / "run")
    assert list(written) == list(expected) and len(expected) > 20
    for name, value in expected.items():
        assert written[name] == value, name


def test_objects_on_a_map_have_its_coordinates(images: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 48), dtype=np.uint8)
    where = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    profile = {"driver": "GTiff", "height": 32, "width": 48, "count": 3, "dtype": "uint8"}
    with rasterio.open(images / "m.tif", "w", transform=where, crs="EPSG:32633", **profile) as file:
        file.write(pixels)
    model = DiffusionInst.from_preset("tiny")
    predict_folder(model, [images], tmp_path / "folder", formats=["geojson"], **SMALL)
    predicted(model, images, tmp_path / "run")
    merge_run(tmp_path / "run", ["geojson"])
    found = model.predict(images / "m.tif", **SMALL)
    found.export(tmp_path / "one" / "m.geojson", "geojson")
    (tmp_path / "run" / MERGED).unlink()
    assert content(tmp_path / "folder") == content(tmp_path / "run")
    written = tmp_path / "folder" / "geojson" / "m.geojson"
    assert written.read_bytes() == (tmp_path / "one" / "m.geojson").read_bytes()
    told = json.loads(written.read_text())
    assert told["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    rings = [part for one in told["features"] for part in parts_of(one["geometry"])]
    corners = np.array([corner for ring in rings for corner in ring])
    rows, columns = np.nonzero(found.masks.any(0).numpy())
    assert corners[:, 0].min() == 400_000 + 0.5 * columns.min()
    assert corners[:, 1].max() == 5_000_000 - 0.5 * rows.min()


def parts_of(geometry: dict[str, Any]) -> list[list[list[float]]]:
    """The outer rings."""
    polygons = geometry["coordinates"]
    polygons = [polygons] if geometry["type"] == "Polygon" else polygons
    return [polygon[0] for polygon in polygons]


def test_a_map_without_the_package_for_maps_is_told(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": 32, "width": 48, "count": 3, "dtype": "uint8"}
    where = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    with rasterio.open(images / "m.tif", "w", transform=where, crs="EPSG:4326", **profile) as file:
        file.write(np.zeros((3, 32, 48), np.uint8))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    model = DiffusionInst.from_preset("tiny")
    said = r"m.tif: maps are read by rasterio; run `pip install"
    with pytest.raises(ImageReadError, match=said):  # before anything is done
        predict_folder(model, [images], tmp_path / "out", formats=["geojson"], **SMALL)
    assert not (tmp_path / "out").exists()
    assert predict_folder(model, [images], tmp_path / "out", formats=["coco"], **SMALL).images == 4
    predicted(model, images, tmp_path / "run")
    with pytest.raises(ImageReadError, match=said):
        merge_run(tmp_path / "run", ["geojson"])
    assert not (tmp_path / "run" / "geojson").exists()


def test_images_that_are_gone_are_counted(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    predicted(DiffusionInst.from_preset("tiny"), images, tmp_path / "run")
    size = (images / "a.png").stat().st_size
    (images / "a.png").write_bytes(b"\0" * size)  # can't be read any more
    (images / "z" / "c.png").unlink()
    merged = merge_run(tmp_path / "run", ["csv", "yolo"], tmp_path / "out")
    assert (merged.images, merged.blind) == (3, 2)
    assert [path.name for path in (tmp_path / "out/yolo/images").iterdir()] == ["a-2.tif"]
    with open(tmp_path / "out" / "measurements.csv", newline="") as opened:
        lines = [line for line in csv.DictReader(opened) if line["area"] != "0"]
    assert {line["image"]: line["mean_red"] == "" for line in lines} == {
        "a.png": True, "a.tif": False, "z/c.png": True,
    }  # fmt: skip


def test_without_the_folder_of_the_images_nothing_is_merged(images: Path, tmp_path: Path) -> None:
    predicted(DiffusionInst.from_preset("tiny"), images, tmp_path / "run")
    images.rename(tmp_path / "elsewhere")
    for format_ in ("yolo", "geojson"):  # one of them is a TIFF: it might lie on a map
        with pytest.raises(FileNotFoundError, match="folder of the run's images is not there"):
            merge_run(tmp_path / "run", [format_], tmp_path / "out")
    assert not (tmp_path / "out" / "yolo").exists()
    assert merge_run(tmp_path / "run", ["coco"], tmp_path / "out").blind == 0  # needs none


def test_an_address_that_fails_ends_the_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")

    def refuse(self: object, path: str, **asked: object) -> bytes:
        raise RuntimeError("no network")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", refuse)
    monkeypatch.setattr("diffinst.scale.remote.FIRST_PAUSE", 0.0)
    row = Row("i", "memory://merge/x/a.png", 6, 4, 6, None, [])
    _, fingerprint = begun(tmp_path, [Entry(row.path, 6, 1)])
    write_part(place(tmp_path), 0, [row], fingerprint)
    with pytest.raises(OSError, match=r"a.png: cannot be fetched \(no network\); merge again"):
        merge_run(tmp_path, ["yolo"])
    assert not (tmp_path / "yolo").exists()


def test_images_behind_addresses_are_fetched_again(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    files, path = filesystem("memory://merge/x/a.png")
    files.pipe_file(path, b"pixels")
    row = Row("i", "memory://merge/x/a.png", 6, 4, 6, None, [])
    _, fingerprint = begun(tmp_path, [Entry(row.path, 6, 1)])
    write_part(place(tmp_path), 0, [row], fingerprint)
    assert merge_run(tmp_path, ["yolo"]).blind == 0
    assert (tmp_path / "yolo" / "images" / "a.png").read_bytes() == b"pixels"


def test_a_row_is_what_was_predicted() -> None:
    one = Instance(1, 0.1, (2.0, 1.0, 5.25, 3.0), "9220003", {"area": 6.0})
    empty = Instance(0, 0.5, (1.0, 1.0, 2.5, 2.0), "h0", {"area": 0.0})  # 24 = all background
    row = Row("i", "a.png", 5, 4, 6, None, [one, empty])
    found = result_of(row, ("cat", "dog"))
    assert found.masks.nonzero().tolist() == [[0, y, x] for y in (1, 2) for x in (2, 3, 4)]
    again = row_of(Item("i", "a.png", 5), found)
    assert again.instances[1] == empty and again.instances[0].rle == one.rle
    assert found.image_size == (4, 6)
    assert len(result_of(Row("i", "a.png", None, 4, 6), ("cat",))) == 0


def test_an_unfinished_or_torn_run_is_refused(finished: Path) -> None:
    file = finished / name_of(2)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(TornPart, match="part-000002"):
        merge_run(finished, ["coco", "geojson"])
    file.unlink()
    with pytest.raises(ValueError, match=r"1 of 3 parts are missing \(parts/part-000002"):
        merge_run(finished, ["cvat"])
    left = {path.name for path in finished.iterdir()}
    assert left == {"run.json", "plan.parquet", "parts"}


def test_what_is_there_stays_and_what_was_left_unfinished_goes(finished: Path) -> None:
    (finished / "geojson").mkdir()
    with pytest.raises(ValueError, match="geojson: exists; remove it, or name another folder"):
        merge_run(finished, ["cvat", "geojson"])
    assert not (finished / "cvat.xml").exists()
    (finished / "geojson").rmdir()
    (finished / ".merge.unfinished" / "geojson").mkdir(parents=True)
    (finished / ".merge.unfinished" / "geojson" / "of a killed process").touch()
    merge_run(finished, ["geojson"])
    names = sorted(path.name for path in (finished / "geojson").iterdir())
    assert names == [f"{name}.geojson" for name in "abde"]
    assert not (finished / ".merge.unfinished").exists()


def test_wrong_formats_and_places_are_refused(finished: Path) -> None:
    with pytest.raises(ValueError, match="--to pdf: unknown; allowed are coco, coco-masks, yolo"):
        merge_run(finished, ["pdf"])
    with pytest.raises(ValueError, match="--to: no format is named; allowed are coco, coco-masks"):
        merge_run(finished, [])
    with pytest.raises(ValueError, match="is an address; name a folder for the files, --out"):
        merge_run("memory://run", ["coco"])


def test_a_run_without_a_result_is_empty_files(finished: Path, fingerprint: str) -> None:
    plan = Plan(place(finished), 2)
    for shard in range(3):
        rows = [Row(item.id, item.path, error="broken") for item in plan.shard(shard)]
        write_part(place(finished), shard, rows, fingerprint)
    merged = merge_run(finished, ["coco", "geojson"])
    assert (merged.images, merged.failed) == (0, 5)
    assert list((finished / "geojson").iterdir()) == []
