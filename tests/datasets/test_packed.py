"""Records come out of the arrays as they went in, one at a time, and processes share the arrays."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffinst.datasets.packed import Packed, PackedRecords, pack_texts, unpack_texts
from diffinst.datasets.packer import Images, Objects, pack
from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.segmentation import Segmentation

SQUARE = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
CORNER = [0.0, 0.0, 1.0, 0.0, 0.0, 1.5]
RUNS: Segmentation = {"size": [4, 6], "counts": [9, 2, 2, 2, 9]}
TEXT: Segmentation = {"size": [4, 6], "counts": "92207"}  # 9, 2, 2, then 2 - 2 and 9 - 2
FOLDER = Path("images")

# Objects in the order of the file: image, label, segmentation, crowd. Images 0 and 2 have some.
OBJECTS: list[tuple[int, int, Segmentation, int]] = [
    (2, 1, [SQUARE, CORNER], 0),
    (0, 0, RUNS, 1),
    (2, 0, TEXT, 0),
    (2, 1, [CORNER], 0),
]


def some() -> Packed:
    images, objects = Images(), Objects()
    for i, name in enumerate(("a.jpg", "sub/ä.jpg", "c.jpg")):
        images.add(30 - 10 * i, 4, 6, name)
        images.negative.add([2, 1] if i == 1 else [])
        images.not_exhaustive.add([0] if i == 2 else [])
    for j, (image, label, segmentation, crowd) in enumerate(OBJECTS):
        objects.add(100 + j, image, label, segmentation, (2, 1, 2, 2), 4.5 + j, crowd)
    rows = np.array([one[0] for one in OBJECTS])
    packed, left_out = pack(images, objects, rows, np.array([one[1] for one in OBJECTS]))
    assert left_out == []
    return packed


def annotation(j: int) -> Annotation:
    _, label, segmentation, crowd = OBJECTS[j]
    return Annotation(100 + j, (2.0, 1.0, 4.0, 3.0), label, segmentation, bool(crowd), 4.5 + j)


RECORDS = (
    ImageRecord(30, FOLDER / "a.jpg", 4, 6, (annotation(1),)),
    ImageRecord(20, FOLDER / "sub/ä.jpg", 4, 6, (), (2, 1), ()),
    ImageRecord(
        10, FOLDER / "c.jpg", 4, 6, (annotation(0), annotation(2), annotation(3)), (), (0,)
    ),
)


@pytest.fixture
def records() -> PackedRecords:
    return PackedRecords(some(), FOLDER)


def test_records_are_what_went_in(records: PackedRecords) -> None:
    assert tuple(records) == RECORDS
    assert [records[i] for i in range(3)] == list(RECORDS)
    types = {type(v) for r in records for a in r.annotations for v in (a.id, a.label, *a.box)}
    assert types == {int, float}  # not numpy's


def test_it_is_a_sequence(records: PackedRecords) -> None:
    assert len(records) == 3
    assert records[-1] == RECORDS[2]
    assert records[1:] == RECORDS[1:] and isinstance(records[1:], tuple)
    assert records[::-2] == RECORDS[::-2]
    assert RECORDS[1] in records
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            records[beyond]


def test_equality(records: PackedRecords) -> None:
    assert records == RECORDS
    assert records == list(RECORDS)
    assert records == PackedRecords(some(), FOLDER)
    assert records != RECORDS[:2]
    assert records != (*RECORDS[:2], replace(RECORDS[2], id=7))
    assert records != PackedRecords(some(), Path("elsewhere"))
    assert records != "abc"
    assert records != 5


def test_no_images() -> None:
    packed, _ = pack(Images(), Objects(), np.zeros(0, np.int64), np.zeros(0, np.int64))
    records = PackedRecords(packed, FOLDER)
    assert records == ()
    assert not records
    assert records.merged() == ()
    assert records.with_ids([1]) == ()


def test_chosen_images(records: PackedRecords) -> None:
    chosen = records.with_ids([10, 20, 5])
    assert chosen == RECORDS[1:]
    assert chosen.object_counts().tolist() == [0, 3]
    assert chosen.labels().tolist() == [1, 0, 1]
    assert records.object_counts().tolist() == [1, 0, 3]
    assert records.labels().tolist() == [0, 1, 0, 1]
    assert chosen.with_ids([20]) == RECORDS[1:2]


def test_merged_records_have_one_label(records: PackedRecords) -> None:
    merged = records.with_ids([20, 10]).merged()
    assert [a.label for r in merged for a in r.annotations] == [0, 0, 0]
    assert [(r.negative, r.not_exhaustive) for r in merged] == [((), ()), ((), ())]
    assert [a.segmentation for a in merged[1].annotations] == [
        a.segmentation for a in RECORDS[2].annotations
    ]
    assert merged.packed.points is records.packed.points  # nothing large was copied


def test_pickled_records_are_the_same(records: PackedRecords) -> None:
    assert pickle.loads(pickle.dumps(records)) == RECORDS
    assert pickle.loads(pickle.dumps(records.merged())) == records.merged()


def test_columns_in_a_file_are_pickled_by_name(records: PackedRecords, tmp_path: Path) -> None:
    file = tmp_path / "points.bin"
    records.packed.points.tofile(file)
    mapped = np.memmap(file, np.float64, "r", 0, records.packed.points.shape)
    large = PackedRecords(replace(records.packed, points=mapped), FOLDER)
    content = pickle.dumps(large)
    assert str(file).encode() in content
    assert pickle.loads(content) == RECORDS
    # A part of it is no longer what the file begins with, so it goes by value.
    part = replace(records.packed, points=mapped[2:])
    assert pickle.loads(pickle.dumps(part)).points.tolist() == mapped[2:].tolist()
    del large, mapped, part
    file.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(content)


def test_texts_of_any_kind() -> None:
    texts = ["a", "", "ä/ö.jpg", "not UTF-8: \udcff"]
    assert unpack_texts(*pack_texts(texts)) == texts
    assert unpack_texts(*pack_texts([])) == []
