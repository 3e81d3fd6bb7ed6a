"""Does a part of the data hold the chosen images, all of their objects, and no others?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes


@pytest.fixture(scope="module")
def labelling(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("labelling")


def test_a_part_of_the_images(labelling: ModuleType, tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=4, val=1, size=(48, 64), objects=(2, 3))
    whole = load_split(data, "train")
    ids = [whole.records[2].id, whole.records[0].id]
    part = load_split(labelling.subset(whole, ids, tmp_path / "part"), "train")
    assert {record.id for record in part.records} == set(ids)
    assert all(record.path.is_file() for record in part.records)
    count = sum(len(record.annotations) for record in part.records)
    assert 0 < count == labelling.objects(whole, ids)
