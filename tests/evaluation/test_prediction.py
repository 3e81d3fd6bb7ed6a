"""Whose numbers are used, what a label means, and is an image of the wrong size noticed?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diffinst.config import Config, ConfigError
from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import (
    Options,
    category_ids,
    label_categories,
    predict_record,
    request,
)
from diffinst.evaluation.run import Source
from diffinst.io.images import ImageReadError


def test_what_is_left_open_is_the_models(shapes: Split) -> None:
    config = Config.from_preset("tiny")
    asked = request(config, shapes, Options())
    assert (asked.steps, asked.proposals) == (config.sampler.steps, config.sampler.proposals)
    assert asked.max_detections == config.postprocess.max_detections
    assert asked.category_ids == (1, 2, 3)
    chosen = request(config, shapes, Options(4, 33, 7, seed=5))
    assert (chosen.steps, chosen.proposals, chosen.max_detections, chosen.seed) == (4, 33, 7, 5)


def test_federated_data_have_lviss_limit(shapes: Split) -> None:
    federated = replace(shapes, federated=True)
    config = Config.from_preset("tiny")
    assert request(config, federated, Options()).max_detections == 300
    assert request(config, federated, Options(max_detections=50)).max_detections == 50


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 2000}, {"proposals": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], shapes: Split) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        request(Config.from_preset("tiny"), shapes, Options(**wrong))  # type: ignore[arg-type]


def test_one_class_takes_every_label(shapes: Split) -> None:
    merged = shapes.merged()
    config = Config.from_preset("tiny")
    assert label_categories(config, merged, single_class=True) == (1, 1, 1)
    named = config.updated(model={"class_names": ["disc", "box", "triangle"]})
    assert label_categories(named, merged, single_class=True) == (1, 1, 1)
    with pytest.raises(ValueError, match=r"has 1 classes \(object\), the model 3 \(disc, box"):
        label_categories(named, merged, single_class=False)


def test_a_model_of_one_class_says_how_it_is_evaluated(shapes: Split) -> None:
    with pytest.raises(ValueError, match=r"has 3 classes .*: evaluate with --single-class"):
        category_ids(("object",), shapes)
    assert category_ids(("object",), shapes.merged()) == (1,)
    with pytest.raises(ValueError, match="or train on this data first") as error:
        category_ids(("cell",), shapes)
    assert "--single-class" not in str(error.value)


def test_a_prediction_is_that_of_the_model(source: Source, shapes: Split) -> None:
    asked = request(source.model.config, shapes, Options(1, 8, 5))
    record = shapes.records[1]
    made = predict_record(source.model, record, asked)
    found = source.model.predict(record.path, steps=1, proposals=8, threshold=0.0, max_detections=5)
    assert made.results == found.to_coco(record.id, (1, 2, 3)) and 0 < len(made.results) <= 5
    assert made.image_id == record.id and made.seconds > 0


def test_an_image_of_another_size_is_refused(source: Source, shapes: Split, tmp_path: Path) -> None:
    Image.new("RGB", (48, 64)).save(tmp_path / "turned.png")
    record = replace(shapes.records[0], path=tmp_path / "turned.png")
    asked = request(source.model.config, shapes, Options(1, 4))
    with pytest.raises(ImageReadError, match=r"turned\.png: the image is \(64, 48\).*\(48, 64\)"):
        predict_record(source.model, record, asked)
