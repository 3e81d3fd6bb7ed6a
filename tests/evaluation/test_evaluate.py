"""A stopped run goes on where it stopped, to the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import pytest
import torch
from PIL import Image

from diffinst.config import ConfigError
from diffinst.datasets.split import Split
from diffinst.evaluation.evaluate import evaluate
from diffinst.evaluation.report import Report
from diffinst.evaluation.source import Source
from diffinst.inference.predictor import DiffusionInst


class Options(TypedDict):
    steps: int
    proposals: int
    max_detections: int


OPTIONS: Options = {"steps": 1, "proposals": 8, "max_detections": 5}


def numbers(report: Report) -> dict[str, float | None]:
    values = report.as_dict()
    del values["seconds_per_image"]
    return values


def lines(out: Path) -> list[int]:
    """Image ids of all whole lines."""
    files = sorted((out / "predictions").glob("*.jsonl"))
    whole = [line for f in files for line in f.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line)["image_id"] for line in whole]


@pytest.fixture(scope="module")
def expected(source: Source, shapes: Split) -> Report:
    report = evaluate(source.model, shapes, **OPTIONS)
    assert len(report.results) > 6
    return report


def test_kept_or_not_the_results_are_the_same(
    source: Source, shapes: Split, expected: Report, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    kept = evaluate(
        source, shapes, out=tmp_path, progress=lambda *call: calls.append(call), **OPTIONS
    )
    assert kept.results == expected.results and numbers(kept) == numbers(expected)
    assert kept.image_ids == expected.image_ids == (1, 2, 3, 4, 5, 6)
    assert calls == [(done, 6) for done in range(7)]
    assert lines(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert evaluate(source, shapes, **OPTIONS).results == expected.results


def test_what_is_done_is_not_done_again(
    source: Source, shapes: Split, expected: Report, tmp_path: Path
) -> None:
    first = evaluate(source, shapes, out=tmp_path, limit=2, **OPTIONS)
    assert first.images == 2 and lines(tmp_path) == [1, 2]
    assert {result["image_id"] for result in first.results} == {1, 2}
    (shard,) = (tmp_path / "predictions").iterdir()
    shard.write_bytes(shard.read_bytes()[:-30])  # torn: image 2 has to be done again
    calls: list[tuple[int, int]] = []
    rest = evaluate(
        source, shapes, out=tmp_path, progress=lambda *call: calls.append(call), **OPTIONS
    )
    assert calls[0] == (1, 6) and calls[-1] == (6, 6)
    assert sorted(lines(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert rest.results == expected.results and numbers(rest) == numbers(expected)
    again = evaluate(source, shapes, out=tmp_path, **OPTIONS)
    assert sorted(lines(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert again.results == expected.results
    assert again.seconds_per_image == rest.seconds_per_image
    assert evaluate(source, shapes, out=tmp_path, limit=2, **OPTIONS).results == first.results


def test_a_killed_run_goes_on(
    source: Source, shapes: Split, shapes_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ("--steps", "25", "--proposals", "8", "--max-detections", "5", "--device", "cpu")
    code = "from diffinst.cli import main; main()"
    command = [sys.executable, "-c", code, "eval", "--data", str(shapes_dir)]
    command += ["--model", str(source.folder), "--out", str(out), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not lines(out):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.kill()
    done = lines(out)
    assert 1 <= len(done) < 6 and not (out / "metrics.json").exists()
    options: Options = {**OPTIONS, "steps": 25}
    same = Source.load(str(source.folder), precision="fp32")  # as the command has it
    report = evaluate(same, shapes, out=out, **options)
    assert sorted(lines(out)) == [1, 2, 3, 4, 5, 6]  # nothing was done twice
    uninterrupted = evaluate(same, shapes, **options)
    assert report.results == uninterrupted.results
    assert numbers(report) == numbers(uninterrupted)


def test_other_settings_are_refused(source: Source, shapes: Split, tmp_path: Path) -> None:
    evaluate(source, shapes, out=tmp_path, limit=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"another evaluation: seed 0 \(now 1\)"):
        evaluate(source, shapes, out=tmp_path, seed=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"another evaluation: categories 1,2,3 \(now 1,1,1\)"):
        evaluate(source, shapes.merged(), out=tmp_path, single_class=True, **OPTIONS)
    assert lines(tmp_path) == [1]


def test_another_image_of_the_same_name_is_refused(
    source: Source, shapes: Split, tmp_path: Path
) -> None:
    path = tmp_path / "000001.png"
    path.write_bytes(shapes.records[0].path.read_bytes())
    split = replace(shapes, records=(replace(shapes.records[0], path=path),))
    first = evaluate(source, split, out=tmp_path / "run", **OPTIONS)
    size = path.stat().st_size
    Image.new("RGB", (64, 48)).save(path)  # all black: fewer bytes
    assert path.stat().st_size < size
    with pytest.raises(ValueError, match=rf"000001\.png has \d+ bytes, it had {size} when"):
        evaluate(source, split, out=tmp_path / "run", **OPTIONS)
    path.unlink()  # gone is not another one
    assert evaluate(source, split, out=tmp_path / "run", **OPTIONS).results == first.results


def test_a_model_is_what_was_loaded(shapes: Split, tmp_path: Path) -> None:
    def fresh(seed: int) -> Path:
        return DiffusionInst.from_preset("tiny", seed=seed).save_pretrained(tmp_path / "model")

    source = Source.load(fresh(0))
    first = evaluate(source, shapes, out=tmp_path / "run", limit=1, **OPTIONS)
    fresh(1)  # training goes on and writes the next weights
    assert (
        evaluate(source, shapes, out=tmp_path / "run", limit=1, **OPTIONS).results == first.results
    )
    with pytest.raises(ValueError, match=r"another evaluation: model \w+\.\.\. \(now \w+\.\.\.\)"):
        evaluate(Source.load(tmp_path / "model"), shapes, out=tmp_path / "run", limit=1, **OPTIONS)
    config = source.model.config.updated(sampler={"steps": 3})
    other = replace(source, model=DiffusionInst(source.model.network, config))
    with pytest.raises(ValueError, match=r"another evaluation: config \w+\.\.\. \(now"):
        evaluate(other, shapes, out=tmp_path / "run", limit=1, **OPTIONS)


@pytest.mark.parametrize("keep", [True, False])
def test_an_image_that_vanishes_is_named_and_the_others_go_on(
    keep: bool, source: Source, shapes: Split, tmp_path: Path
) -> None:
    gone = replace(shapes.records[1], path=tmp_path / "000001.png")
    split = replace(shapes, records=(shapes.records[0], gone, shapes.records[2]))
    out = tmp_path / "run" if keep else None
    report = evaluate(source, split, out=out, **OPTIONS)
    assert report.images == 2 and report.image_ids == (1, 3)
    (message,) = report.failed
    assert str(gone.path) in message and "no such file" in message
    assert report.as_dict()["failed_images"] == 1
    counted = [shapes.records[0], shapes.records[2]]
    assert sum(report.objects.values()) == sum(len(r.annotations) for r in counted)
    if out is not None:
        gone.path.write_bytes(shapes.records[1].path.read_bytes())
        whole = evaluate(source, split, out=out, **OPTIONS)
        assert whole.images == 3 and whole.failed == ()
        assert sorted(lines(out)) == [1, 2, 3]


def test_any_label_counts_as_the_only_class(source: Source, shapes: Split) -> None:
    merged = evaluate(source, shapes.merged(), single_class=True, **OPTIONS)
    apart = evaluate(source, shapes, **OPTIONS)
    assert [r["score"] for r in merged.results] == [r["score"] for r in apart.results]
    assert {r["category_id"] for r in merged.results} == {1}
    assert len({r["category_id"] for r in apart.results}) > 1
    assert list(merged.mask.per_class) == ["object"]


def test_images_without_annotations_have_no_metrics(source: Source, shapes: Split) -> None:
    bare = replace(shapes, records=tuple(replace(r, annotations=()) for r in shapes.records))
    report = evaluate(source, bare, limit=2, **OPTIONS)
    assert not report.annotated and len(report.results) > 0
    values = report.as_dict()
    assert {v for k, v in values.items() if k.startswith(("mask/", "box/"))} == {None}


def test_federated_images_are_scored_by_lviss_rules(source: Source, shapes: Split) -> None:
    federated = replace(shapes, federated=True, frequency=("r", "c", "f"))
    report = evaluate(source, federated, steps=1, proposals=8, limit=2)
    assert {"mask/AP_rare", "box/AP_common", "mask/AP_frequent"} <= set(report.as_dict())


def test_nothing_to_evaluate(source: Source, shapes: Split) -> None:
    with pytest.raises(ValueError, match=r"instances_val\.json lists no images"):
        evaluate(source, replace(shapes, records=()), **OPTIONS)
    with pytest.raises(ValueError, match=r"limit=0: give at least 1"):
        evaluate(source, shapes, limit=0, **OPTIONS)
    with pytest.raises(ValueError, match=r"processes=0, .*give at least 1"):
        evaluate(source, shapes, processes=0, **OPTIONS)


def test_a_name_and_a_folder_are_enough(
    source: Source, shapes: Split, shapes_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert source.folder is not None
    calls: list[tuple[int, int]] = []
    report = evaluate(
        source.folder,
        str(shapes_dir),
        limit=2,
        out=tmp_path / "run",
        worst=1,
        device="cpu",
        progress=lambda *call: calls.append(call),
        **OPTIONS,
    )
    assert calls == [(0, 2), (1, 2), (2, 2)] and report.images == 2 and report.notes == ()
    counts = [sum(r["image_id"] == record.id for r in report.results) for record in shapes.records]
    assert max(counts) <= 5 and counts[2] == 0
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert values["mask/AR10"] is None  # at most five detections: not defined
    assert 0 <= values["mask/AP"] <= 1
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written == {"seed": 0, "noises": 1, **OPTIONS, **values}
    worst = json.loads((tmp_path / "run" / "worst.json").read_text())
    assert len(worst["images"]) == 1
    assert worst["score_threshold"] == 0.3  # a usual one, as this model keeps everything
    again = evaluate(source.folder, shapes_dir, out=tmp_path / "run", files=False, **OPTIONS)
    assert again.images == 6  # and no other files
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == written


def test_the_models_own_threshold_counts_for_the_worst_images(
    shapes: Split, tmp_path: Path
) -> None:
    model = DiffusionInst.from_preset("tiny")
    strict = DiffusionInst(model.network, model.config.updated(postprocess={"threshold": 0.25}))
    evaluate(strict, shapes, out=tmp_path, limit=1, **OPTIONS)
    assert json.loads((tmp_path / "worst.json").read_text())["score_threshold"] == 0.25


def test_zero_detections_are_refused_as_in_predict(shapes: Split) -> None:
    model = DiffusionInst.from_preset("tiny")
    with pytest.raises(ConfigError, match=r"max_detections.*0"):
        evaluate(model, shapes, max_detections=0)


def test_a_loaded_model_goes_on(shapes: Split, expected: Report, tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny")
    evaluate(model, shapes, out=tmp_path, limit=1, **OPTIONS)
    report = evaluate(model, shapes, out=tmp_path, **OPTIONS)
    assert report.results == expected.results and sorted(lines(tmp_path)) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"another evaluation: model"):
        evaluate(DiffusionInst.from_preset("tiny", seed=1), shapes, out=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="give its name or folder"):
        evaluate(model, shapes, processes=2, **OPTIONS)
