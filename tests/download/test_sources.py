"""What a folder lacks of a dataset, and what that takes, is told rightly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diffinst.download.sources import (
    DATASETS,
    Archive,
    Dataset,
    Name,
    Part,
    Plan,
    SplitName,
    Step,
    plan,
)

COCO = "http://images.cocodataset.org"


def fetched(needs: Plan) -> list[str]:
    return [step.archive.name for step in needs.steps]


def made(needs: Plan) -> list[str]:
    return [target for step in needs.steps for part in step.parts for target in part.targets]


def put(root: Path, *targets: str) -> None:
    for target in targets:
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_bytes(b"x")
        else:
            path.mkdir()


def test_the_table_is_consistent() -> None:
    for name, dataset in DATASETS.items():
        targets = [target for part in dataset.parts for target in part.targets]
        assert len(set(targets)) == len(targets), name
        for part in dataset.parts:
            assert part.splits and part.archive.name.endswith(".zip")
            assert re.match(r"https?://[\w.]+/.+", part.archive.url)
            known = part.archive.checksum
            assert known is None or re.fullmatch(r"md5:[0-9a-f]{32}", known)
        assert dataset.licence and set(dataset.splits) == {"train", "val"}
    sums = {part.archive.name: part.archive.checksum for part in DATASETS["coco"].parts}
    assert sums["val2017.zip"] == "md5:442b8da7639aecaf257c1dceb8ba8c80"
    assert sums["train2017.zip"] == "md5:cced6f7f71b7629ddf16f17bbcfab6b2"
    assert sums["annotations_trainval2017.zip"] == "md5:f4bbac642086de4f52a3fdda2de5fa2c"


@pytest.mark.parametrize(
    ("name", "only", "archives"),
    [
        ("coco", None, ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]),
        ("coco", "val", ["annotations_trainval2017.zip", "val2017.zip"]),
        ("coco", "train", ["annotations_trainval2017.zip", "train2017.zip"]),
        ("coco", "test", ["image_info_test2017.zip", "test2017.zip"]),
        (
            "lvis",
            None,
            ["lvis_v1_val.json.zip", "lvis_v1_train.json.zip", "val2017.zip", "train2017.zip"],
        ),
        ("lvis", "train", ["lvis_v1_train.json.zip", "train2017.zip"]),
        ("lvis", "val", ["lvis_v1_val.json.zip", "val2017.zip", "train2017.zip"]),  # both
        ("nuclei", None, ["stage1_train.zip"]),
        ("nuclei", "val", ["stage1_train.zip"]),
    ],
)
def test_what_an_empty_folder_lacks(
    tmp_path: Path, name: Name, only: SplitName | None, archives: list[str]
) -> None:
    needs = plan(name, tmp_path / "new", only=only)
    assert fetched(needs) == archives
    assert needs.present == ()
    assert needs.to_fetch == sum(step.archive.size for step in needs.steps)
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_val2017.json", "train2017")
    needs = plan("coco", tmp_path)
    assert made(needs) == ["annotations/instances_train2017.json", "val2017"]
    assert needs.present == (
        tmp_path / "annotations/instances_val2017.json",
        tmp_path / "train2017",
    )
    put(tmp_path, "annotations/instances_train2017.json", "val2017")
    assert plan("coco", tmp_path).steps == () and plan("coco", tmp_path).room() == 0


def test_half_a_split_of_nuclei_is_none(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_val.json")
    assert "val" in made(plan("nuclei", tmp_path))
    put(tmp_path, "val")
    assert made(plan("nuclei", tmp_path)) == ["train", "annotations/instances_train.json"]


@pytest.mark.parametrize("coco", ["coco", "coco/images"])
def test_lvis_finds_the_images_of_coco_beside_it(tmp_path: Path, coco: str) -> None:
    put(tmp_path / coco, "train2017")
    assert "train2017" in made(plan("lvis", tmp_path / "lvis"))  # val2017 would not be found there
    assert fetched(plan("lvis", tmp_path / "lvis", only="train")) == ["lvis_v1_train.json.zip"]
    put(tmp_path / coco, "val2017")
    needs = plan("lvis", tmp_path / "lvis")
    assert made(needs) == ["annotations/lvis_v1_val.json", "annotations/lvis_v1_train.json"]
    assert needs.present == (tmp_path / coco / "val2017", tmp_path / coco / "train2017")
    put(tmp_path / "lvis", "val2017")  # then its own folder is where images are looked for
    assert "train2017" in made(plan("lvis", tmp_path / "lvis"))


def test_bytes_there_are_not_counted_again(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "val2017.zip.part").write_bytes(b"x" * 1000)
    needs = plan("coco", tmp_path, only="val")
    assert [step.there for step in needs.steps] == [0, 1000]
    assert needs.to_fetch == 252_907_541 + 815_585_330 - 1000
    assert "815.6 MB (1.0 kB there) -> val2017" in needs.describe()
    (folder / "val2017.zip.part").rename(folder / "val2017.zip")
    assert plan("coco", tmp_path, only="val").steps[1].there == 1000
    (folder / "val2017.zip").write_bytes(b"x" * 10)
    assert plan("coco", tmp_path, only="val").steps[1].to_fetch == 815_585_320


def test_the_room_needed_is_that_of_the_worst_moment(tmp_path: Path) -> None:
    def step(size: int, unpacked: int, there: int = 0) -> Step:
        archive = Archive("http://host/a.zip", size)
        part = Part(("a",), archive, unpacked, ("val",))
        return Step(archive, archive.url, tmp_path / "a.zip", there, (part,))

    dataset = Dataset("title", "licence", ())
    # 10 fetched + 30 unpacked = 40; less the archive 30; 20 fetched + 5 unpacked on top = 55.
    needs = Plan(dataset, tmp_path, (step(10, 30), step(20, 5)), ())
    assert needs.room() == 55 and needs.room(keep=True) == 65
    # 4 of the first archive are there: 6 + 30 = 36; all 10 are freed: 26; 51.
    needs = Plan(dataset, tmp_path, (step(10, 30, there=4), step(20, 5)), ())
    assert needs.room() == 51 and needs.room(keep=True) == 61
    # The first moment may be the worst.
    assert Plan(dataset, tmp_path, (step(20, 5), step(1, 1)), ()).room() == 25
    assert Plan(dataset, tmp_path, (), ()).room() == 0


@pytest.mark.parametrize("mirror", ["https://mirror.org/data", "https://mirror.org/data/"])
def test_a_mirror_stands_in_for_all_hosts(tmp_path: Path, mirror: str) -> None:
    assert [step.url for step in plan("lvis", tmp_path, mirror=mirror).steps] == [
        "https://mirror.org/data/LVIS/lvis_v1_val.json.zip",
        "https://mirror.org/data/LVIS/lvis_v1_train.json.zip",
        "https://mirror.org/data/zips/val2017.zip",
        "https://mirror.org/data/zips/train2017.zip",
    ]


def test_the_description_says_what_from_where_and_under_which_licence(tmp_path: Path) -> None:
    text = plan("coco", tmp_path, only="val").describe()
    assert "licence: annotations CC BY 4.0" in text
    assert f"{COCO}/zips/val2017.zip: 815.6 MB -> val2017" in text
    text = plan("nuclei", tmp_path).describe()
    assert "licence: CC0 1.0" in text and "about 83.0 MB -> val, " in text and "note: masks" in text
    put(tmp_path, "val2017")
    assert f"there already: {tmp_path / 'val2017'}" in plan("coco", tmp_path).describe()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no dataset 'voc' to download; there are coco, lvis, nucl"
    ):
        plan("voc", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nuclei has no split 'test' to download; it has val, tra"):
        plan("nuclei", tmp_path, only="test")
