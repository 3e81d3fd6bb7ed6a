"""Do the commands for many images run as written, and refuse in one line what cannot be?"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.cli.scale import Many, address, slice_of

pytest.importorskip("pyarrow", reason="parts are Parquet files")
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]
SMALL = ("--proposals", 6, "--max-detections", 2, "--threshold", 0, "--device", "cpu")


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_slices() -> None:
    assert (slice_of(None), slice_of("1/1"), slice_of("64/64")) == (None, (1, 1), (64, 64))
    for wrong in ("65/64", "0/64", "3", "a/b", "-1/4", "1/0"):
        with pytest.raises(
            ValueError, match=f"--shard {wrong}: give one slice of how many, from 1/"
        ):
            slice_of(wrong)


def test_any_flag_of_many_images_asks_for_parts() -> None:
    assert not Many().asked
    assert Many(shards=True).asked and Many(on="ray").asked and Many(workers=2).asked


def test_addresses_survive_being_a_path() -> None:
    for text in ("s3://bucket/run", "memory://a", "runs/many"):
        assert address(Path(text)) == text
    assert address(Path("file:///data/run")) == "/data/run"


def test_predict_verify_and_merge(diffinst: Run, model: Path, shapes: Path, tmp_path: Path) -> None:
    """In two slices, as an array of jobs does them."""
    out = tmp_path / "[many]"
    flags = ("--model", model, "--out", out, "--shard-size", 2, "--workers", 1, *SMALL)
    code, _, err = diffinst("predict", shapes / "val", *flags, "--shard", "1/2")
    assert code == 0 and "on 2 images, 0 errors" in one_line(err)
    assert "segmenting 2/2" in err and f"diffinst verify {out}" in one_line(err)
    code, _, err = diffinst("verify", out)
    assert code == 1 and "part-000001.parquet: is missing (1 images)" in one_line(err)
    code, _, err = diffinst("merge", out, "--to", "csv")
    assert code == 1 and "1 of 2 parts are missing" in one_line(err)
    code, _, err = diffinst("predict", shapes / "val", *flags)
    assert code == 0 and "on 1 images, 2 were there already" in one_line(err)
    code, _, err = diffinst("verify", out)
    assert code == 0 and "3 images, 0 of them errors, " in err and "whole: every" in err
    code, _, err = diffinst("merge", out, "--to", "coco,cvat")
    assert code == 0 and f"coco {out}/coco.json cvat {out}/cvat.xml" in one_line(err)
    assert (out / "coco.json").stat().st_size > 0 < (out / "cvat.xml").stat().st_size
    code, _, err = diffinst("merge", out, "--to", "coco")
    assert code == 1 and f"{out}/coco.json: exists; remove it, or" in one_line(err)
    more = ("--as", "geojson", "--as", "coco")  # the second is there
    code, _, err = diffinst("predict", shapes / "val", *flags, *more)
    assert code == 0 and "coco.json, merged before" in one_line(err)
    assert len(list((out / "geojson").iterdir())) == 3
    (out / "yolo").mkdir()  # nothing of this run
    code, _, err = diffinst("predict", shapes / "val", *flags, "--as", "yolo")
    assert code == 1 and "yolo: exists; remove it, or" in one_line(err)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shard", "65/64"), "--shard 65/64: give one slice of how many, from 1/64 to 64/64"),
        (("--on", "dask"), "--on dask: there is no such engine; allowed are local and ray"),
        (("--shards", "--compile"), "--compile: not with --shards"),
        (
            ("--shards", "--as", "csv,yoyo"),
            "--as yoyo: unknown; allowed are coco, coco-masks, yolo",
        ),
        (
            ("--shard", "1/2", "--as", "yolo"),
            "--as: --shard 1/2 is not the whole run; omit it, and",
        ),
        (("--shards", "--timeout", "nan"), "--timeout nan: give seconds, more than 0"),
    ],
)
def test_wrong_flags_are_one_line(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out"
    code, _, err = diffinst("predict", shapes / "val", "--model", model, "--out", out, *flags)
    assert code == 1 and said in one_line(err) and "Traceback" not in err
    assert not out.exists()


def test_what_lies_in_a_new_folder_is_not_taken_for_this_runs(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "coco.json").write_text("mine")
    flags = ("--model", model, "--shards", "--as", "coco", "--out")
    code, _, err = diffinst("predict", shapes / "val", *flags, tmp_path)
    assert code == 1 and "coco.json: exists; remove it, or name another folder" in one_line(err)
    code, _, err = diffinst("predict", shapes / "val", *flags, "memory://run")
    assert code == 1 and "--to coco` --out FOLDER" in one_line(err)


def test_empty_and_unreadable_inputs(diffinst: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    for given, said in (
        (tmp_path / "empty", "there is no image in what was given"),
        (tmp_path / "list.txt", "list.txt: is no UTF-8 text"),
        (tmp_path / "nix", "nix: there is no such file or folder"),
    ):
        out = tmp_path / "out"
        code, _, err = diffinst("predict", given, "--shards", "--model", model, "--out", out)
        assert code == 1 and said in one_line(err) and "Traceback" not in err


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_missing(diffinst: Run, model: Path, shapes: Path, tmp_path: Path) -> None:
    flags = ("--model", model, "--out", tmp_path / "out", "--on", "ray")
    code, _, err = diffinst("predict", shapes / "val", *flags)
    assert code == 1 and "pip install 'diffinst[scale,ray]'" in one_line(err)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk_leaves_no_part_and_the_next_run_goes_on(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    """No file may grow beyond 3 kB, which the plan does not and a part does."""
    out = tmp_path / "out"
    flags = ["--model", model, "--out", out, "--shard-size", 3, "--workers", 1, *SMALL]
    flags[flags.index("--max-detections") + 1] = 6
    limited = (
        "import resource, sys\n"
        "from diffinst.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "main()\n"
    )
    command = [sys.executable, "-c", limited, "predict", shapes / "val", *flags]
    run = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=os.environ, check=False
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "File too large" in run.stderr
    assert (out / "run.json").is_file() and not list(out.rglob("*part-*"))
    code, _, _ = diffinst("predict", shapes / "val", *flags)
    assert code == 0 and diffinst("verify", out)[0] == 0
