"""A line is either whole or ignored, and predictions of other settings are never mixed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.prediction import Prediction, request
from diffinst.evaluation.source import Source
from diffinst.evaluation.store import Settings, Shard, Store, describe
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.convert import CocoResult

SETTINGS: Settings = {"model": "a" * 64, "steps": 1, "seed": 0}
RECORDS = tuple(ImageRecord(i, Path(f"{i}.png"), 48, 64, ()) for i in range(1, 5))
SPLIT = Split("val", Path("v.json"), ("a",), (1,), RECORDS, Path())


def prediction(image_id: int, score: float = 0.1) -> Prediction:
    result: CocoResult = {
        "image_id": image_id,
        "category_id": 1,
        "bbox": [0.1, 1 / 3, 2.0, 3.0],  # no short decimals
        "score": score,
        "segmentation": {"size": [48, 64], "counts": "0P]1"},
    }
    return Prediction(image_id, 0.25, [result] * image_id)


def write(store: Store, *predictions: Prediction) -> None:
    shard = Shard(store.shards)
    for each in predictions:
        shard.append(each)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    assert store.read(SPLIT) == {}
    write(store, prediction(2), prediction(1))
    write(store, replace(prediction(3), results=[]))
    again = Store(tmp_path, SETTINGS).read(SPLIT)
    assert again[1] == prediction(1) and again[2] == prediction(2)
    assert again[3].results == [] and set(again) == {1, 2, 3}
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_a_line_is_there_before_the_next_image_starts(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    shard = Shard(store.shards)
    assert list(tmp_path.glob("predictions/*")) == []  # no file for a process without work
    shard.append(prediction(1))
    assert set(store.read(SPLIT)) == {1}
    shard.append(prediction(2))
    assert set(store.read(SPLIT)) == {1, 2}
    assert len(list(store.shards.iterdir())) == 1


@pytest.mark.parametrize("cut", [1, 2, 40, -1])
def test_a_torn_last_line_is_ignored(cut: int, tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    write(store, prediction(1), prediction(2))
    (path,) = store.shards.iterdir()
    first, second, end = path.read_bytes().split(b"\n")
    assert end == b""
    path.write_bytes(first + b"\n" + second[:cut])
    assert set(store.read(SPLIT)) == {1}
    path.write_bytes(first + b"\n" + b"\0" * 30)  # what a power cut may leave
    assert set(store.read(SPLIT)) == {1}
    write(store, prediction(2))  # into a file of its own: nothing is appended to a torn line
    assert set(store.read(SPLIT)) == {1, 2}


def test_a_broken_line_elsewhere_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    write(store, prediction(1), prediction(2))
    (path,) = store.shards.iterdir()
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first[:-5] + b"\n" + second + b"\n")
    with pytest.raises(ValueError, match=r"\.jsonl, line 1 is broken .*; remove this line"):
        store.read(SPLIT)


def test_an_image_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    write(store, prediction(1), prediction(2))
    write(store, replace(prediction(2), seconds=9.0))  # only the time differs
    assert set(store.read(SPLIT)) == {1, 2}
    write(store, prediction(2, score=0.2))
    with pytest.raises(ValueError, match=r"another prediction of image 2 than at .*line \d"):
        store.read(SPLIT)


def test_an_image_of_another_split(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    write(store, prediction(7))
    with pytest.raises(ValueError, match=r"line 1: image 7 is not in the split"):
        store.read(SPLIT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 4}, r"another evaluation: steps 1 \(now 4\); choose another folder"),
        ({"model": "b" * 64}, r"model aaaaaaaaaaaa\.\.\. \(now bbbbbbbbbbbb\.\.\.\)"),
        ({"steps": 4, "seed": 3}, r"steps 1 \(now 4\), seed 0 \(now 3\)"),
        ({"proposals": 9}, r"proposals None \(now 9\)"),
    ],
)
def test_other_settings_are_named(change: Settings, message: str, tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=message):
        Store(tmp_path, {**SETTINGS, **change})


@pytest.mark.parametrize("content", ["", "[1]", "7", "{"])
def test_broken_settings(content: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json is not readable"):
        Store(tmp_path, SETTINGS)


def test_predictions_that_nobody_knows_the_settings_of(tmp_path: Path) -> None:
    write(Store(tmp_path, SETTINGS), prediction(1))
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"predictions holds predictions without settings\.json"):
        Store(tmp_path, SETTINGS)


def test_settings_know_model_images_and_options(
    source: Source, shapes: Split, tmp_path: Path
) -> None:
    def settings(
        split: Split = shapes, model: Source = source, device: str = "cpu", **chosen: int
    ) -> Settings:
        asked = request(model.model.config, split, **chosen)  # type: ignore[arg-type]
        return describe(model, split, asked, device)

    same = settings()
    config = source.model.config
    assert same == settings(steps=config.sampler.steps)  # said or left open
    away = Path("/elsewhere")
    moved = replace(
        shapes,
        image_dir=away,
        records=tuple(
            replace(r, path=away / r.path.relative_to(shapes.image_dir)) for r in shapes.records
        ),
    )
    assert same == settings(moved)
    deeper = tuple(replace(r, path=away / "deeper" / r.path.name) for r in moved.records)
    copied = tmp_path / "copy"
    assert source.folder is not None
    shutil.copytree(source.folder, copied)
    assert same == settings(model=Source.load(copied))
    (copied / "config.json").write_text((copied / "config.json").read_text() + " ")
    sharper = DiffusionInst(
        source.model.network, config.updated(postprocess={"mask_threshold": 0.9})
    )
    different = [
        settings(model=Source.load(copied)),
        settings(model=replace(source, model=sharper)),
        settings(device="cuda:1"),
        settings(steps=2),
        settings(proposals=3),
        settings(max_detections=7),
        settings(seed=1),
        settings(noises=2),
        settings(replace(moved, records=moved.records[:-1])),
        settings(replace(moved, records=deeper)),
        settings(replace(shapes, category_ids=(2, 3, 4))),
    ]
    keys: tuple[str, ...] = (
        "model",
        "config",
        "device",
        "steps",
        "proposals",
        "max_detections",
        "seed",
        "noises",
    )
    keys += ("images", "images", "categories")
    for other, key in zip(different, keys, strict=True):
        assert {k for k in same if same[k] != other[k]} == {key}
    assert same["torch"] == torch.__version__ and same["device"] == "cpu"
