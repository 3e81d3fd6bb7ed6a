"""What the readers forgive in a name is forgiven here; what they do not is told with a proposal."""

import json
from pathlib import Path

import pytest

from diffinst.datasets.doctor.disk import find
from diffinst.datasets.images import Folder
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "deep/b.png", "deep/twice.png", "other/twice.png", "other/Case.png"):
        file = tmp_path / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "beside.png").touch()
    return tmp_path


NAMES = [
    ("a.png", "a.png", ""),
    ("train/a.png", "a.png", ""),
    ("b.png", "deep/b.png", ""),
    ("deep\\b.png", "deep/b.png", ""),
    ("C:\\images\\b.png", "deep/b.png", ""),
    ("/nowhere/b.png", "deep/b.png", ""),
    ("a.png/", "a.png", "but a.png is there"),
    ("wrong/b.png", "deep/b.png", "but deep/b.png is there"),
    ("case.png", "other/Case.png", "but other/Case.png is there"),
    ("twice.png", None, "it may be deep/twice.png, other/twice.png"),
    ("c.png", None, "not in "),
    ("../c.png", None, "leads out of "),
    ("../beside.png", None, "leads out of "),
    ("..\\beside.png", None, "leads out of "),
]


@pytest.mark.parametrize(("name", "there", "problem"), NAMES, ids=[name for name, *_ in NAMES])
def test_name_is_found_where_the_reader_finds_it(
    name: str, there: str | None, problem: str, root: Path
) -> None:
    path, told = find(Folder(root / "train"), name, "")
    assert path == (None if there is None else root / "train" / there)
    assert told.startswith(problem) and bool(told) == bool(problem)

    image = {"id": 1, "file_name": name, "height": 4, "width": 6}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content), "utf-8")
    if problem:
        with pytest.raises(DatasetError):
            load_split(root, "train")
    else:
        assert load_split(root, "train").records[0].path == path


def test_address_may_be_the_name(root: Path) -> None:
    assert find(Folder(root / "train"), "x.png", "deep/b.png") == (root / "train/deep/b.png", "")
    path, problem = find(Folder(root / "train"), "x.png", "deep/c.png")
    assert path is None
    assert problem
