"""Does `verify` find what is missing, torn, foreign or changed, and nothing where all is well?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffinst.scale.fingerprint import AnotherRun
from diffinst.scale.place import place
from diffinst.scale.plan import FILE
from diffinst.scale.rows import name_of, read_part, write_part
from diffinst.scale.verify import verify_run


def test_a_whole_run(finished: Path) -> None:
    found = verify_run(finished)
    # 5 images, shards of 2: c.png is broken, the others have 1, 2, 3 and 4 instances
    assert (found.images, found.errors, found.instances, found.problems) == (5, 1, 10, [])


def test_a_missing_part(finished: Path) -> None:
    (finished / name_of(1)).unlink()
    found = verify_run(finished)
    assert len(found.problems) == 1 and found.images == 3
    assert "part-000001.parquet: is missing (2 images); run the same" in found.problems[0]


def test_a_torn_part(finished: Path) -> None:
    file = finished / name_of(0)
    file.write_bytes(file.read_bytes()[:-9])
    (problem,) = verify_run(finished).problems
    assert "part-000000.parquet: is torn or damaged" in problem


def test_foreign_parts(finished: Path) -> None:
    shutil.copy(finished / name_of(0), finished / "parts" / "other.parquet")
    shutil.copy(finished / name_of(0), finished / name_of(3))
    shutil.copy(finished / name_of(0), finished / name_of(1))
    problems = verify_run(finished).problems
    assert len(problems) == 3
    assert problems[0].startswith("parts/other.parquet: is no part of this run")
    assert problems[1].startswith("parts/part-000003.parquet: is no part of this run")
    assert problems[2].startswith("parts/part-000001.parquet: holds another shard's rows")
    write_part(place(finished), 1, [], "another")
    assert any(
        "part-000001.parquet: belongs to another" in p for p in verify_run(finished).problems
    )


def test_rows_of_other_images(finished: Path, fingerprint: str) -> None:
    rows = list(read_part(place(finished), 0, fingerprint))
    write_part(place(finished), 0, [rows[0], rows[0]], fingerprint)
    (problem,) = verify_run(finished).problems
    assert "part-000000.parquet: holds other images than the plan's (2 rows" in problem


def test_a_torn_or_foreign_plan(finished: Path, tmp_path: Path) -> None:
    from diffinst.scale.inputs import Entry
    from diffinst.scale.plan import write_plan

    plan = finished / FILE
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-5])
    assert "plan.parquet: is torn or damaged" in verify_run(finished).problems[0]
    plan.unlink()
    assert "plan.parquet: is missing" in verify_run(finished).problems[0]
    write_plan(place(finished), [Entry(f"{i}.png", i, i) for i in range(5)])
    assert "plan.parquet: is not the one" in verify_run(finished).problems[0]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(AnotherRun, match="holds no"):
        verify_run(tmp_path)
