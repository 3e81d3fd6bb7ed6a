"""Does a folder take one run, one plan and this run's parts, whoever else begins with it?"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffinst.scale.fingerprint import FILE, AnotherRun, Run, load, loaded, save
from diffinst.scale.inputs import Inputs
from diffinst.scale.place import Place, absolute, place
from diffinst.scale.plan import digest
from diffinst.scale.prepare import _begin, check_parts, plan_of, prepare
from diffinst.scale.rows import TornPart, name_of


def quiet(text: str) -> None:
    """Nothing is asked of what is said."""


def asked(folder: Path) -> tuple[Run, Inputs]:
    inputs = Inputs.of(folder)
    run = Run(
        weights="w", config="c", device="cpu", precision="fp32", options={}, reading={}, seed=0,
        classes=("cat",), asked=inputs.asked, root=inputs.root,
    )  # fmt: skip
    return run, inputs


def test_parts_without_their_run_are_refused(finished: Path, images: Path) -> None:
    (finished / FILE).unlink()
    with pytest.raises(AnotherRun, match=r"finished: holds parts but no run\.json"):
        prepare(place(finished), *asked(images), "fp32", quiet)


def test_parts_of_another_run_are_not_skipped(finished: Path) -> None:
    where = place(finished)
    run = loaded(where)
    check_parts(where, [0, 1, 2], run)
    with pytest.raises(TornPart, match=r"part-000000\.parquet: belongs to another run"):
        check_parts(where, [0, 1, 2], replace(run, weights="other"))
    shutil.copy(finished / name_of(0), finished / name_of(1))
    with pytest.raises(TornPart, match=r"part-000001\.parquet: holds another shard's rows"):
        check_parts(where, [0, 1], run)
    (finished / name_of(2)).write_bytes(b"PAR1")
    with pytest.raises(TornPart, match=r"part-000002\.parquet: is torn or damaged"):
        check_parts(where, [2], run)


@pytest.mark.parametrize("address", ["memory://two-drivers", None])
def test_the_first_of_two_drivers_decides(
    images: Path, tmp_path: Path, address: str | None
) -> None:
    """Between the listing of the first and of the second an image arrives."""
    pytest.importorskip("fsspec")
    where: Place = place(address or f"local://{tmp_path}/out")
    first, inputs = asked(images)
    kept = prepare(where, first, inputs, "fp32", quiet)
    (images / "zzz.png").write_bytes((images / "000.png").read_bytes())
    other = replace(kept, images=5, plan="another")
    assert save(where, other) == kept == load(where)  # what is there stays
    assert _begin(where, first, Inputs.of(images), quiet) == kept  # listed five, and was late
    again = prepare(where, first, inputs, "fp32", quiet)
    assert (again.images, plan_of(where, again).images) == (4, 4)
    assert digest(where) == kept.plan


def test_a_plan_that_does_not_come_is_named(finished: Path) -> None:
    run = loaded(place(finished))
    with pytest.raises(AnotherRun, match=r"plan\.parquet is not the one of run\.json"):
        plan_of(place(finished), replace(run, images=9))
    (finished / "plan.parquet").unlink()
    with pytest.raises(AnotherRun, match=r"plan\.parquet is missing"):
        plan_of(place(finished), run)
    with pytest.raises(AnotherRun, match=r"plan\.parquet is missing"):
        plan_of(place("memory://no-plan"), run, patience=0.0)


def test_a_file_address_is_its_folder(tmp_path: Path) -> None:
    where = place(f"file://{tmp_path}/run")
    assert where.local == place(Path(f"file://{tmp_path}/run")).local == tmp_path / "run"
    assert absolute(f"file://{tmp_path}/run") == f"{tmp_path}/run"
