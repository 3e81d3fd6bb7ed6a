"""Does a folder come out complete: no name twice, nothing lost to a broken image?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffinst.config import ConfigError, Options, Reading
from diffinst.inference.folder import _Run, predict_folder
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.runner import Runner
from diffinst.io import images
from diffinst.io.images import ImageReadError
from diffinst.io.out_of_memory import OutOfMemory
from diffinst.results.formats.scene import Scene
from diffinst.results.instances import Instances


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


def write_image(path: Path, seed: int, size: tuple[int, int] = (24, 32)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("behind", [False, True])
def test_every_image_has_its_own_files(
    model: DiffusionInst, tmp_path: Path, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if behind:  # as on a GPU
        take = _Run.take

        def later(run: _Run, path: Path, scene: Scene, _: object) -> None:
            with ThreadPoolExecutor(2) as threads:
                take(run, path, scene, threads)

        monkeypatch.setattr(_Run, "take", later)
    # The same stem in two folders and under two suffixes; "a-2" is the name of an image too.
    names = ["x/a.png", "x/b/a.png", "y/a.jpg", "y/a-2.png", "y/A.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / "in" / name, seed, size=(20 + seed, 30))
    summary = predict_folder(model, [tmp_path / "in"], tmp_path / "out", proposals=5)
    assert (summary.images, summary.failed) == (5, ())
    for kind in ("overlays", "masks"):
        written = sorted(p.name for p in (tmp_path / "out" / kind).iterdir())
        assert len({name.casefold() for name in written}) == 5
        heights = {Image.open(tmp_path / "out" / kind / name).height for name in written}
        assert heights == {20, 21, 22, 23, 24}
    own = Image.open(tmp_path / "out" / "masks" / "a-2.png")
    assert own.height == 23  # who is called so keeps the name


def test_results_and_index_belong_together(model: DiffusionInst, tmp_path: Path) -> None:
    files = [write_image(tmp_path / f"{name}.png", i) for i, name in enumerate("pq")]
    summary = predict_folder(model, files, tmp_path / "out", proposals=5, threshold=0)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert summary.instances == len(results) > 0
    assert [entry["file_name"] for entry in index["images"]] == [str(file) for file in files]
    first = index["images"][0]
    run = first.pop("run")
    assert first == {"id": 1, "file_name": str(files[0]), "height": 24, "width": 32}
    own = model.config.sampler
    assert (run["steps"], run["proposals"], run["kind"]) == (own.steps, 5, own.kind)
    assert [c["name"] for c in index["categories"]] == list(model.class_names)
    for number, file in enumerate(files, start=1):
        expected = model.predict(file, proposals=5, threshold=0).to_coco(number)
        found = [r for r in results if r["image_id"] == number]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):  # a batch sums in another order
            assert one["segmentation"] == other["segmentation"]
            assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)
    label_map = np.asarray(Image.open(tmp_path / "out" / "masks" / "p.png"))
    assert label_map.dtype == np.uint16 and label_map.shape == (24, 32)


def test_broken_images_are_reported_and_the_others_done(
    model: DiffusionInst, tmp_path: Path
) -> None:
    good = [write_image(tmp_path / f"{name}.png", i) for i, name in enumerate("ac")]
    broken = tmp_path / "b.png"
    broken.write_bytes(good[0].read_bytes()[:200])
    summary = predict_folder(model, [tmp_path], tmp_path / "out", proposals=5)
    assert summary.images == 2 and len(summary.failed) == 1
    assert str(broken) in summary.failed[0]
    assert sorted(p.stem for p in (tmp_path / "out" / "masks").iterdir()) == ["a", "c"]
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [entry["id"] for entry in index["images"]] == [1, 3]


def test_values_reach_the_model(model: DiffusionInst, tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.png", 0)
    assert predict_folder(model, [file], tmp_path / "out", max_detections=2).instances == 2
    nothing = predict_folder(model, [file], tmp_path / "out", threshold=1.0)
    assert nothing.instances == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []


def test_an_empty_folder_is_an_error(model: DiffusionInst, tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="no images in"):
        predict_folder(model, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_run_does_not_read_its_own_images(model: DiffusionInst, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    for _ in range(2):  # results go into the folder that is read
        assert predict_folder(model, [tmp_path], tmp_path / "out", threshold=0.0).images == 1


def test_what_is_done_stays_when_the_run_is_stopped(
    model: DiffusionInst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", 0)
    each = model.predict_each

    def stopped_at_b(files: list[Path], **options: Any) -> object:
        for path, found in each(files, **options):
            if path.stem == "b":
                raise KeyboardInterrupt
            yield path, found

    monkeypatch.setattr(model, "predict_each", stopped_at_b)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(model, [tmp_path / "in"], tmp_path / "out", threshold=0.0)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [Path(image["file_name"]).name for image in index["images"]] == ["a.png"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())


def test_a_second_program_is_kept_out_of_the_folder(model: DiffusionInst, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    out = tmp_path / "out"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from diffinst.io.lock import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"another program is at work on {out}; wait"):
            predict_folder(model, [tmp_path / "a.png"], out, threshold=0.0)
        assert not (out / "results.json").exists()
        child.kill()
        child.wait(timeout=30)
    unfinished = out / "masks" / ".a.0123abcd.tmp.png"
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"half of it")
    assert predict_folder(model, [tmp_path / "a.png"], out, threshold=0.0).images == 1
    assert not unfinished.exists() and (out / "results.json").is_file()


def test_an_image_that_cannot_be_saved_ends_the_run_and_what_is_whole_stays(
    model: DiffusionInst, tmp_path: Path
) -> None:
    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.png", 0)
    (tmp_path / "out" / "masks" / "b.png").mkdir(parents=True)  # a folder where a file is to go
    with pytest.raises(IsADirectoryError, match=r"b\.png: it is a folder"):
        predict_folder(model, [tmp_path / "in"], tmp_path / "out", proposals=5)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [Path(image["file_name"]).name for image in index["images"]] == ["a.png"]


def test_a_wrong_option_leaves_earlier_results_alone(model: DiffusionInst, tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.png", 0)
    predict_folder(model, [file], tmp_path / "out", proposals=5, threshold=0.0)
    before = (tmp_path / "out" / "results.json").read_bytes()
    for wrong in ({"steps": 5000}, {"treshold": 0.5}):
        with pytest.raises(ConfigError):
            predict_folder(model, [file], tmp_path / "out", **wrong)
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_links_that_lead_nowhere_and_in_a_circle_are_reported(
    model: DiffusionInst, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png", 0)
    (folder / "broken.png").symlink_to(folder / "gone.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    done = predict_folder(model, [folder], tmp_path / "out", proposals=5)
    broken, loop = done.failed
    assert done.images == 1 and "gone.png, which leads nowhere" in broken and "loop.png" in loop


def test_a_name_that_is_no_utf8_stays_itself_in_the_index(
    model: DiffusionInst, tmp_path: Path
) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/b\xff.png")
    try:
        write_image(tmp_path / "a.png", 0).rename(name)
    except OSError:  # macOS, Windows
        pytest.skip("this file system takes UTF-8 names only")
    assert predict_folder(model, [name], tmp_path / "out", proposals=5).images == 1
    (image,) = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))["images"]
    assert os.fsencode(image["file_name"]).endswith(b"b\xff.png")


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_where_results_are_to_go_is_refused_before_any_work(
    model: DiffusionInst, tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "predict_each", None)
    (tmp_path / "f.txt").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"f\.txt.* is a file; results go into a folder"):
        predict_folder(model, [write_image(tmp_path / "a.png", 0)], tmp_path / "f.txt" / below)
    assert (tmp_path / "f.txt").read_text() == "mine"


def test_an_image_that_does_not_fit_in_memory_is_named_and_the_others_done(
    model: DiffusionInst, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_image(tmp_path / f"{name}.png", i) for i, name in enumerate("abc")]
    write_image(files[1], 1, size=(24, 33))  # known by its size

    def finished(values: NDArray[Any], *rest: Any) -> Any:
        if values.shape[1] == 33:
            raise MemoryError
        return whole(values, *rest)

    whole = images._finished
    monkeypatch.setattr(images, "_finished", finished)
    done = predict_folder(model, files, tmp_path / "read", proposals=5)
    (message,) = done.failed
    assert done.images == 2 and message.startswith(f"{files[1]}: does not fit in memory")
    monkeypatch.undo()

    def predict(
        runner: Runner, tensors: list[Tensor], options: Options, *more: None
    ) -> list[Instances]:
        if tensors[0].shape[2] == 33:
            raise OutOfMemory("out of memory while predicting: lower proposals")
        return before(runner, tensors, options, *more)

    before = Runner.predict
    monkeypatch.setattr(Runner, "predict", predict)
    done = predict_folder(model, files, tmp_path / "predicted", proposals=5)
    assert done.images == 2
    assert done.failed == (f"{files[1]}: out of memory while predicting: lower proposals",)


def test_deep_images_and_stacks_are_told_of_once(model: DiffusionInst, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime")]
    for name in "ab":
        deep = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
        Image.fromarray(deep).save(tmp_path / f"deep-{name}.png")
        frames[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = predict_folder(model, [tmp_path], tmp_path / "out", proposals=5)
        chosen = Reading(page=0, stretch="full")
        silent = predict_folder(model, [tmp_path], tmp_path / "out", reading=chosen, proposals=5)
    assert [text.startswith("values of more than 8 bits") for text in done.notes].count(True) == 1
    assert sum("holds 2 pages, the first is read" in text for text in done.notes) == 2
    assert len(done.notes) == 3 and done.images == silent.images == 4 and silent.notes == ()


def test_other_formats_are_written_beside(model: DiffusionInst, tmp_path: Path) -> None:
    files = [write_image(tmp_path / "in" / name, i) for i, name in enumerate(["a.png", "b/a.png"])]
    out = tmp_path / "in" / "out"
    for _ in range(2):  # what the first run wrote is no image for the second
        formats = ["coco", "yolo", "labelme", "labels", "csv", "coco"]
        done = predict_folder(
            model, [tmp_path / "in"], out, formats=formats, proposals=5, threshold=0
        )
        assert (done.images, done.failed) == (2, ())
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b/a.png"]
    results = json.loads((out / "results.json").read_text())
    table = (out / "measurements.csv").read_text().splitlines()
    assert len(table) == 1 + done.instances == 1 + len(results) > 1
    for folder, suffix in (("yolo/labels", "txt"), ("labelme", "json"), ("labels", "tif")):
        written = {path.name for path in (out / folder).iterdir()}
        assert {f"a.{suffix}", f"a-2.{suffix}"} <= written
    for folder in ("yolo/images", "labelme"):
        assert (out / folder / "a-2.png").read_bytes() == files[1].read_bytes()
    no_images_left = predict_folder(model, [out / "yolo"], out)
    assert no_images_left.images == 0


def test_a_wrong_format_is_refused_before_anything_is_written(
    model: DiffusionInst, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "a.png", 0)
    with pytest.raises(ValueError, match="--as yoyo: unknown; allowed are coco"):
        predict_folder(model, [image], tmp_path / "out", formats=["yolo", "yoyo"])
    assert not (tmp_path / "out").exists()
