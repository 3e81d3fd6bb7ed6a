"""Is the file JSON, one entry a line, and never half there?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffinst.evaluation.results import write_results


def test_one_entry_a_line(tmp_path: Path) -> None:
    entries = [{"image_id": 1, "bbox": [0.5, 1 / 3]}, {"image_id": 2, "name": "\u00e9"}]
    assert write_results(tmp_path / "r.json", iter(entries)) == 2
    text = (tmp_path / "r.json").read_text("ascii")
    assert json.loads(text) == entries
    assert text.splitlines()[1] == '{"image_id":1,"bbox":[0.5,0.3333333333333333]},'


def test_nothing_is_an_empty_list(tmp_path: Path) -> None:
    assert write_results(tmp_path / "r.json", []) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_a_failure_half_way_leaves_the_file_before(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, object]]:
        yield {"score": 0.5}
        raise RuntimeError("half way")

    path = tmp_path / "r.json"
    write_results(path, [{"score": 1}])
    with pytest.raises(RuntimeError, match="half way"):
        write_results(path, broken())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, [{"score": math.nan}])
    assert json.loads(path.read_text()) == [{"score": 1}]
    assert list(tmp_path.iterdir()) == [path]
