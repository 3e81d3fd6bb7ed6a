"""Do model folders get a card that the hub reads, and is a person's own card left alone?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from diffinst import DiffusionInst
from diffinst.config import Config
from diffinst.weights.card import Card, scores, write_card
from diffinst.weights.store import locate

CARD = Card("cc-by-4.0", "cells: 40 images", {"mask/AP": 0.51236, "box/AP": 0.5})


def test_the_hub_reads_licence_data_and_metrics(tmp_path: Path) -> None:
    write_card(tmp_path / "cells", Config.from_preset("tiny"), CARD)
    front = ModelCard.load(tmp_path / "cells" / "README.md").data
    assert (front.license, front.library_name) == ("cc-by-4.0", "diffinst")
    assert front.pipeline_tag == "image-segmentation" and front.model_name == "cells"
    first, second = front.eval_results
    assert (first.metric_type, first.metric_value) == ("mask/AP", 0.5124)
    assert first.dataset_name == second.dataset_name == "cells: 40 images"
    text = (tmp_path / "cells" / "README.md").read_text()
    assert "| mask/AP | 0.512 |" in text and "3: class 0, class 1, class 2" in text
    rounded = replace(CARD, metrics={"mask/AP": 0.5124, "box/AP": 0.5})
    assert Card.read(tmp_path / "cells") == rounded


def test_what_is_unknown_is_said_to_be(tmp_path: Path) -> None:
    write_card(tmp_path, Config.from_preset("tiny"), Card())
    text = (tmp_path / "README.md").read_text()
    assert text.count("not stated; say it here before you share") == 2 and "Not measured." in text
    assert ModelCard.load(tmp_path / "README.md").data.license is None
    assert Card.read(tmp_path) == Card()


def test_a_card_that_a_person_wrote_stays(tiny: DiffusionInst, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    tiny.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_model_keeps_what_is_known_of_it(tiny: DiffusionInst, tmp_path: Path) -> None:
    model = DiffusionInst(tiny.network, tiny.config)
    model.card = CARD
    loaded = DiffusionInst.from_pretrained(model.save_pretrained(tmp_path / "a"))
    assert (loaded.card.license, loaded.card.data) == (CARD.license, CARD.data)
    again = DiffusionInst.from_pretrained(loaded.save_pretrained(tmp_path / "b"))
    assert again.card == loaded.card


@pytest.mark.parametrize(
    "text", ["", "# A model", "---\n[1\n---\n", "---\nlicense: mit\n", "---\n- 1\n---\n"]
)
def test_other_cards_say_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert Card.read(tmp_path) == Card()


def test_shipped_weights_have_front_matter() -> None:
    card = Card.read(locate("nano-nuclei"))
    assert card.license == "apache-2.0" and card.metrics["mask/AP"] == 0.640
    assert ModelCard.load(locate("nano-nuclei") / "README.md").data.license == "apache-2.0"


def test_scores_are_those_of_training(tmp_path: Path) -> None:
    assert scores(tmp_path / "metrics.json") == {}
    values = {"iteration": 5, "val/mask/AP": 0.5, "box/AP": 0.25, "mask/AP_large": None}
    (tmp_path / "metrics.json").write_text(json.dumps(values))
    assert scores(tmp_path / "metrics.json") == {"mask/AP": 0.5, "box/AP": 0.25}
