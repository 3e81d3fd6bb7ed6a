"""Whose numbers are used, what a label means, and how an image of the wrong size is noticed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diffinst.config import Config, ConfigError
from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Prediction, predictions, request
from diffinst.evaluation.source import Source
from diffinst.io.images import ImageReadError


def test_what_is_left_open_is_the_models(shapes: Split) -> None:
    config = Config.from_preset("tiny")
    asked = request(config, shapes)
    assert (asked.steps, asked.proposals) == (config.sampler.steps, config.sampler.proposals)
    assert asked.max_detections == config.postprocess.max_detections
    assert asked.category_ids == (1, 2, 3)
    chosen = request(config, shapes, steps=4, proposals=33, max_detections=7, seed=5)
    assert (chosen.steps, chosen.proposals, chosen.max_detections, chosen.seed) == (4, 33, 7, 5)


def test_federated_data_have_lviss_limit(shapes: Split) -> None:
    federated = replace(shapes, federated=True)
    config = Config.from_preset("tiny")
    assert request(config, federated).max_detections == 300
    assert request(config, federated, max_detections=50).max_detections == 50


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 2000}, {"proposals": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], shapes: Split) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        request(Config.from_preset("tiny"), shapes, **wrong)  # type: ignore[arg-type]


def test_one_class_takes_every_label(shapes: Split) -> None:
    merged = shapes.merged()
    config = Config.from_preset("tiny")
    assert request(config, merged, single_class=True).category_ids == (1, 1, 1)
    named = config.updated(model={"class_names": ["disc", "box", "triangle"]})
    assert request(named, merged, single_class=True).category_ids == (1, 1, 1)
    with pytest.raises(ValueError, match=r"has 1 classes \(object\), the model 3 \(disc, box"):
        request(named, merged)


def named(*names: str) -> Config:
    model = {"class_names": list(names), "num_classes": len(names)}
    return Config.from_preset("tiny").updated(model=model)


def test_labels_mean_names_not_positions(shapes: Split) -> None:
    # ids 1, 2, 3 are disc, box, triangle; this model counts from the other end
    assert shapes.classes == ("disc", "box", "triangle")
    assert request(named("triangle", "box", "disc"), shapes).category_ids == (3, 2, 1)


def test_other_classes_are_refused(shapes: Split) -> None:
    for names in (("cell",), ("disc", "box", "cat"), ("disc", "box", "disc")):
        with pytest.raises(ValueError, match=r"instances_val\.json has 3 classes \(disc, box, tri"):
            request(named(*names), shapes)
    with pytest.raises(ValueError, match=r"the model 1 \(cell\)"):
        request(named("cell"), shapes)


def test_a_model_without_names_needs_the_number_of_classes(shapes: Split) -> None:
    two = replace(shapes, classes=("disc", "box"), category_ids=(1, 2))
    with pytest.raises(ValueError, match="has 2 classes, the model 3 without names"):
        request(Config.from_preset("tiny"), two)


def test_a_model_of_one_class_says_how_it_is_evaluated(shapes: Split) -> None:
    with pytest.raises(ValueError, match=r"has 3 classes .*: evaluate with --single-class"):
        request(named("object"), shapes)
    assert request(named("object"), shapes.merged()).category_ids == (1,)
    with pytest.raises(ValueError, match="or train on this data first") as error:
        request(named("cell"), shapes)
    assert "--single-class" not in str(error.value)


def test_a_prediction_is_that_of_the_model(source: Source, shapes: Split) -> None:
    asked = request(source.model.config, shapes, steps=1, proposals=8, max_detections=5)
    record = shapes.records[1]
    ((same, made),) = predictions(source.model, [record], asked)
    found = source.model.predict(record.path, steps=1, proposals=8, threshold=0.0, max_detections=5)
    assert isinstance(made, Prediction) and same is record
    assert made.results == found.to_coco(record.id, (1, 2, 3), boxes="predicted")
    assert 0 < len(made.results) <= 5
    assert made.image_id == record.id and made.seconds > 0


def test_an_image_of_another_size_is_an_error_beside_the_others(
    source: Source, shapes: Split, tmp_path: Path
) -> None:
    Image.new("RGB", (48, 64)).save(tmp_path / "turned.png")
    record = replace(shapes.records[0], path=tmp_path / "turned.png")
    gone = replace(shapes.records[2], path=tmp_path / "gone.png")
    asked = request(source.model.config, shapes, steps=1, proposals=4)
    all_three = (record, shapes.records[1], gone)
    turned, good, missing = (o for _, o in predictions(source.model, all_three, asked))
    assert isinstance(turned, ImageReadError) and isinstance(good, Prediction)
    assert re.search(r"turned\.png: the image is \(64, 48\).*\(48, 64\)", str(turned))
    assert isinstance(missing, ImageReadError) and "gone.png" in str(missing)
