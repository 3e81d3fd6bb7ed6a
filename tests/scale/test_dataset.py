"""Is a data set predicted as its images would be alone, once each, and gone on with?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.image_error import ImageReadError
from diffinst.io.lock import alone_in
from diffinst.scale import predict_dataset
from diffinst.scale.dataset import Done, _asked
from diffinst.scale.fingerprint import AnotherRun, loaded
from diffinst.scale.inputs import Inputs
from diffinst.scale.messages import Item, Row
from diffinst.scale.place import absolute, place
from diffinst.scale.plan import image_seed
from diffinst.scale.rows import name_of, read_part
from diffinst.scale.verify import verify_run
from diffinst.scale.worker import row_of

OPTIONS: OptionFields = {"proposals": 6, "max_detections": 2, "threshold": 0.0, "seed": 5}


def rows(out: Path) -> list[Row]:
    fingerprint = loaded(place(out)).fingerprint
    count = len(list((out / "parts").iterdir()))
    return [row for k in range(count) for row in read_part(place(out), k, fingerprint)]


def test_a_run_from_its_list_to_its_rows(
    model: Path, images: Path, tmp_path: Path, parts: Callable[[Path], dict[str, bytes]]
) -> None:
    """Broken, piped, vanished and repeated inputs; then what goes on, and what is refused."""
    (images / "broken.png").write_bytes((images / "000.png").read_bytes()[:60])
    if hasattr(os, "mkfifo"):
        os.mkfifo(images / "pipe.png")
    names = ["000.png", "001.png", "broken.png", "pipe.png", "gone.png", "002.png", "./000.png"]
    listed = images / "list.txt"
    listed.write_text("\n".join([*names, "003.png"]) + "\n")
    states: list[int] = []

    def run(**more: Unpack[OptionFields]) -> Done:
        return predict_dataset(
            listed, tmp_path / "out", model=model, shard_size=3, device="cpu", workers=1,
            progress=lambda state: states.append(state.done), **(OPTIONS | more),
        )  # fmt: skip

    done = run()
    assert (done.images, done.errors, done.before, done.repeated) == (7, 3, 0, 1)
    assert states == [1, 2, 3, 4, 5, 6, 7]
    found = rows(tmp_path / "out")
    assert done.instances == sum(len(row.instances) for row in found) > 0
    assert [row.path for row in found] == [*names[:6], "003.png"]
    errors = {row.path: row.error for row in found if row.error is not None}
    assert errors["gone.png"].startswith("gone.png: there is no such file or folder")
    assert errors["broken.png"].startswith("broken.png: ")
    assert set(errors) == {"broken.png", "pipe.png", "gone.png"}
    alone = DiffusionInst.from_pretrained(model, device="cpu").optimize("fp32")
    for row in (one for one in found if one.error is None):
        seeded: OptionFields = {**OPTIONS, "seed": image_seed(5, row.id)}
        same = row_of(_item(row), alone.predict(images / row.path, **seeded))
        assert (row.height, row.width) == (32, 48) == (same.height, same.width)
        assert [one.label for one in row.instances] == [one.label for one in same.instances]
        for mine, theirs in zip(row.instances, same.instances, strict=True):
            assert mine.score == pytest.approx(theirs.score, abs=1e-4)
            assert mine.box == pytest.approx(theirs.box, abs=1e-2)
    whole = parts(tmp_path / "out")
    assert sorted(whole) == [name_of(k).rpartition("/")[2] for k in range(3)]
    assert verify_run(tmp_path / "out").problems == []

    again = run()  # nothing is left to do
    assert (again.images, again.before) == (0, 7)
    os.remove(tmp_path / "out" / name_of(1))
    for name in ("000.png", "001.png", "002.png", "003.png"):
        os.utime(images / name, ns=(10**18, 4 * 10**18))  # clocks jump: the plan stands
    os.remove(images / "000.png")  # its part is there
    again = run()
    assert (again.images, again.before) == (3, 4)
    assert parts(tmp_path / "out") == whole

    with pytest.raises(AnotherRun, match=r"steps was 1, is 2"):
        run(steps=2)
    with (
        alone_in(tmp_path / "out"),
        pytest.raises(BlockingIOError, match=rf"process {os.getpid()}"),
    ):
        run()


def test_names_that_cross_to_other_machines_are_absolute(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    _, own = _asked(model.name, "cpu", "fp32", None, Inputs.of(images), {})
    assert own == str(model)
    assert absolute("out") == str(model.parent / "out")
    assert absolute("s3://bucket/run") == "s3://bucket/run"


def _item(row: Row) -> Item:
    return Item(row.id, row.path, row.bytes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "dask"}, "--on dask: there is no such engine; allowed are local and ray"),
        ({"shard": (65, 64)}, "--shard 65/64: of 64 slices, the first is 1/64"),
        ({"shard": (0, 4)}, "--shard 0/4: of 4 slices"),
        ({"workers": 0}, "--workers 0: give at least 1"),
        ({"shard_size": 0}, "--shard-size 0: give at least 1"),
        ({"timeout": 0.0}, "--timeout 0.0: give seconds, more than 0"),
        ({"proposals": 0}, "proposals"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(
    model: Path, images: Path, tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        predict_dataset(images, tmp_path / "out", model=model, device="cpu", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_empty_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ImageReadError, match="there is no image in what was given"):
        predict_dataset(tmp_path / "in", tmp_path / "out", model=model, device="cpu")


def test_a_time_limit_is_refused_before_anything_is_written(tmp_path: Path, model: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"seconds is 0\.5, but parts have to be the same bytes"):
        predict_dataset([str(tmp_path / "a.png")], tmp_path / "out", model=str(model), seconds=0.5)
    assert not (tmp_path / "out" / "plan.parquet").exists()


@pytest.mark.parametrize(("images", "out"), [("memory://a", "runs/a"), ("a.png", "memory://a")])
def test_the_memory_of_a_process_is_refused(images: str, out: str) -> None:
    with pytest.raises(ValueError, match="memory://a: the memory of one process"):
        predict_dataset(images, out)
