"""`diffinst download` ends in a folder that the other commands load."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cyclopts import App
from PIL import Image

from diffinst.cli.download import download
from diffinst.datasets.load import load_split
from diffinst.download import sources
from diffinst.download.archive import ArchiveError
from diffinst.download.fetch import DownloadError
from diffinst.io.lock import alone_in

COCO = {
    "annotations/annotations_trainval2017.zip": (
        "annotations/instances_val2017.json",
        "annotations/instances_train2017.json",
        "annotations/captions_val2017.json",
    ),
    "zips/val2017.zip": ("val2017/000000000001.jpg",),
    "zips/train2017.zip": ("train2017/000000000002.jpg", "train2017/000000000003.jpg"),
}
LVIS = {
    "LVIS/lvis_v1_val.json.zip": ("lvis_v1_val.json",),
    "LVIS/lvis_v1_train.json.zip": ("lvis_v1_train.json",),
}
NUCLEI = "bbbc/BBBC038/stage1_train.zip"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def encoded(kind: str, size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 90, 10)).save(file, kind)
    return file.getvalue()


def content_of(member: str) -> bytes:
    """What the archives hold: images of 4 x 6, one object of 2 x 2 on each."""
    if member.endswith(".jpg"):
        return encoded("jpeg")
    split = "val" if "val" in member else "train"
    ids = [1] if split == "val" else [2, 3]
    lvis = member.startswith("lvis")
    category: dict[str, object] = {"id": 1, "name": "cat"}
    image: dict[str, object] = {"height": 4, "width": 6}
    if lvis:
        category |= {"frequency": "c", "synset": "cat.n.01", "synonyms": ["cat"], "def": "a cat"}
        category |= {"image_count": 1, "instance_count": 1}
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    images = [
        image
        | {"id": i, "file_name": f"{i:012}.jpg"}
        | {"coco_url": f"http://images.cocodataset.org/{split}2017/{i:012}.jpg"}
        for i in ids
    ]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4.0}
        | {"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
        | ({} if lvis else {"iscrowd": 0})
        for i in ids
    ]
    return json.dumps({"images": images, "annotations": objects, "categories": [category]}).encode()


def nuclei() -> dict[str, bytes]:
    mask = io.BytesIO()
    Image.fromarray(np.eye(4, 6, dtype=np.uint8) * 255).save(mask, "png")
    content = {}
    for name in ("04acab76" + "0" * 56, "00071198" + "0" * 56):  # one of val, one of train
        content[f"{name}/images/{name}.png"] = encoded("png")
        content[f"{name}/masks/a.png"] = mask.getvalue()
    return content


def pack(path: Path, content: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, value in content.items():
            file.writestr(name, value)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tiny archives as publishers have them; the table gets their sizes and sums."""
    folder = tmp_path / "published"
    for name, members in (COCO | LVIS).items():
        pack(folder / name, {member: content_of(member) for member in members})
    pack(folder / NUCLEI, nuclei())

    def small(archive: sources.Archive) -> sources.Archive:
        file = folder / archive.at("").lstrip("/")
        if not file.is_file():  # COCO's test images
            return archive
        md5 = f"md5:{hashlib.md5(file.read_bytes()).hexdigest()}"
        checksum = archive.checksum and md5
        return replace(archive, size=file.stat().st_size, checksum=checksum)

    tables = {
        name: replace(
            dataset,
            parts=tuple(
                replace(part, archive=small(part.archive), unpacked=1000) for part in dataset.parts
            ),
        )
        for name, dataset in sources.DATASETS.items()
    }
    monkeypatch.setattr(sources, "DATASETS", tables)
    return folder


@pytest.fixture
def mirror(published: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(published))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*tokens: object) -> None:
    app = App(result_action="return_value")
    app.command(download)
    app(["download", *map(str, tokens)])


def test_coco(
    mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    monkeypatch.setenv("DIFFINST_MIRROR", mirror)
    run("coco", "--out", out)
    said = capsys.readouterr().err
    assert f"{mirror}/zips/val2017.zip: " in said and "CC BY 4.0" in said and "free are" in said
    assert f"next: diffinst train --data {out}" in said
    assert names(out) == ["annotations", "train2017", "val2017"]
    assert names(out / "annotations") == ["instances_train2017.json", "instances_val2017.json"]
    train, val = load_split(out, "train"), load_split(out, "val")
    assert [len(split.records) for split in (train, val)] == [2, 1]
    assert train.classes == ("cat",)
    with Image.open(train.records[0].path) as opened:
        assert opened.size == (6, 4)


def test_one_split_then_the_rest_and_nothing_twice(
    mirror: str, tmp_path: Path, published: Path
) -> None:
    out = tmp_path / "data"
    download("coco", out=out, only="val", mirror=mirror)
    assert names(out) == ["annotations", "val2017"]
    assert len(load_split(out, "val").records) == 1
    (published / "zips" / "val2017.zip").unlink()  # so that fetching it again would fail
    download("coco", out=out, mirror=mirror)
    assert len(load_split(out, "train").records) == 2
    shutil.rmtree(published)
    download("coco", out=out, mirror=mirror)


def test_lvis_with_the_images_of_coco_beside_it(
    mirror: str, tmp_path: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download("coco", out=tmp_path / "coco", mirror=mirror)
    capsys.readouterr()
    out = tmp_path / "lvis"
    download("lvis", out=out, mirror=mirror)
    said = capsys.readouterr().err
    assert names(out) == ["annotations"]
    for archive in LVIS:  # to be pinned
        assert f"sha256:{hashlib.sha256((published / archive).read_bytes()).hexdigest()}" in said
    assert said.count("no published checksum is known") == 2
    assert [len(load_split(out, name).records) for name in ("train", "val")] == [2, 1]


def test_lvis_alone(mirror: str, tmp_path: Path) -> None:
    out = tmp_path / "lvis"
    download("lvis", out=out, mirror=mirror)
    assert names(out) == ["annotations", "train2017", "val2017"]
    assert load_split(out, "train").records[0].path.is_file()


def test_nuclei(mirror: str, tmp_path: Path, published: Path) -> None:
    out = tmp_path / "nuclei"
    download("nuclei", out=out, mirror=mirror, keep=True)
    for split in ("train", "val"):
        (record,) = load_split(out, split).records
        (nucleus,) = record.annotations
        assert nucleus.box == (0, 0, 4, 4) and nucleus.area == 4  # a diagonal
    kept = out / "archives" / "stage1_train.zip"
    assert kept.read_bytes() == (published / NUCLEI).read_bytes()


def test_an_archive_put_there_by_hand_is_used(tmp_path: Path, published: Path) -> None:
    out = tmp_path / "nuclei"
    (out / "archives").mkdir(parents=True)
    (out / "archives" / ".stage1_train.zip.part.12345678.tmp.json").touch()  # of a killed run
    shutil.copy(published / NUCLEI, out / "archives")
    download("nuclei", out=out, mirror="http://127.0.0.1:9")  # nobody is there
    assert names(out) == ["annotations", "train", "val"]


def test_a_dry_run_says_all_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("coco", "--only", "val", "--dry-run")
    said = capsys.readouterr().err
    assert "http://images.cocodataset.org/zips/val2017.zip: 815.6 MB -> val2017" in said
    # 252.9 + 815.6 MB to fetch; the worst moment has 20.0 (json) + 815.6 packed + 815.6 unpacked.
    assert "to fetch: 1.1 GB; needs up to 1.7 GB in datasets/coco" in said
    assert "licence:" in said and names(tmp_path) == []


def test_too_small_a_disk_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10**9))
    message = r"coco \(fetched and unpacked\) needs 40\.0 GB in .*, where 1\.0 GB are free; free 39"
    with pytest.raises(OSError, match=message):
        download("coco", out=tmp_path / "coco", mirror="http://127.0.0.1:9")
    assert names(tmp_path) == []


def test_a_wrong_archive_stops_it_and_a_new_start_goes_on(
    mirror: str, tmp_path: Path, published: Path
) -> None:
    out, file = tmp_path / "coco", published / "zips" / "val2017.zip"
    right = file.read_bytes()
    file.write_bytes(right[::-1])
    with pytest.raises(DownloadError, match=r"val2017\.zip from .* has md5:\w+, expected is md5:"):
        download("coco", out=out, only="val", mirror=mirror)
    assert not (out / "val2017").exists()
    file.write_bytes(right)
    download("coco", out=out, only="val", mirror=mirror)
    assert names(out) == ["annotations", "val2017"]


def test_a_damaged_archive_without_a_checksum(mirror: str, tmp_path: Path, published: Path) -> None:
    file = published / NUCLEI
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match=r"stage1_train\.zip: damaged, .*remove it and fetch it"):
        download("nuclei", out=tmp_path / "nuclei", mirror=mirror)
    assert names(tmp_path / "nuclei") == ["archives"]


def test_only_one_at_a_time(mirror: str, tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(BlockingIOError, match="another program is at work"):
        download("nuclei", out=tmp_path, mirror=mirror)
