"""Are val images scored as they would be one by one, and those that cannot be read named?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.evaluation.prediction import Prediction, predictions, request
from diffinst.evaluation.report import score
from diffinst.inference.predictor import DiffusionInst
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.module import DiffusionInstModule
from diffinst.training.stream import StreamData
from diffinst.training.validation import SHEET_IMAGES, Validation

Settings = Callable[..., Config]


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Eleven images, more than go through the network together; the last four of another size."""
    folder = tmp_path_factory.mktemp("shapes")
    split = load_split(make_shapes(folder, train=0, val=11, size=(48, 64), objects=(1, 3)), "val")
    records = list(split.records)
    for i, record in enumerate(records[7:], start=7):
        Image.open(record.path).resize((64, 96)).save(record.path)
        records[i] = replace(record, height=96, width=64, annotations=())
    return replace(split, records=tuple(records))


@pytest.fixture(scope="module")
def network(quick: Settings) -> DiffusionInstNetwork:
    torch.manual_seed(0)
    return DiffusionInstNetwork(quick().model).eval()


def test_scores_are_those_of_one_image_at_a_time(
    val: Split, network: DiffusionInstNetwork, quick: Settings
) -> None:
    model, asked = DiffusionInst(network, quick()), request(quick(), val)
    single = []
    for record in val.records:
        ((_, outcome),) = predictions(model, [record], asked)
        assert isinstance(outcome, Prediction)
        single.append(outcome)
    together = Validation(network, quick(), val)
    for start in (0, 8):
        together.predict(val.records[start : start + 8])
    found, expected = together.report(), score(val, single, asked.max_detections)
    assert found.image_ids == expected.image_ids == tuple(record.id for record in val.records)
    assert len(found.results) == len(expected.results) > 50
    for one, other in zip(found.results, expected.results, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
    for mine, theirs in ((found.mask, expected.mask), (found.box, expected.box)):
        assert mine.as_dict("x") == pytest.approx(theirs.as_dict("x"), abs=1e-6, nan_ok=True)


def test_an_image_that_cannot_be_read_is_named_and_the_others_scored(
    val: Split, network: DiffusionInstNetwork, quick: Settings, tmp_path: Path
) -> None:
    gone = replace(val.records[1], path=tmp_path / "gone.png")
    other = replace(val.records[2], height=47)
    validation = Validation(network, quick(), val)
    validation.predict([val.records[0], gone, other, val.records[3]])
    assert len(validation.failed) == 2
    assert "gone.png" in validation.failed[0] and "annotations (47, 64)" in validation.failed[1]
    assert validation.report().image_ids == tuple(val.records[i].id for i in (0, 3))
    validation.save_sheet(tmp_path / "sheet.png", 1)
    assert (tmp_path / "sheet.png").is_file()


def test_the_sheet_shows_iteration_and_prediction_beside_annotation(
    val: Split, network: DiffusionInstNetwork, quick: Settings, tmp_path: Path
) -> None:
    def drawn(threshold: float, iteration: int) -> tuple[np.ndarray, list[str]]:
        config = quick().updated(postprocess={"threshold": threshold})
        validation = Validation(network, config, val)
        validation.predict(val.records[:7])
        validation.save_sheet(tmp_path / "sheet.png", iteration)
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        return sheet, [caption for _, caption in validation._drawn]

    sure, captions = drawn(1.0, 500)
    assert len(captions) == 2 * SHEET_IMAGES  # the seventh image is not shown
    for record, left, right in zip(val.records, captions[::2], captions[1::2], strict=False):
        n = len(record.annotations)
        assert left.splitlines()[:2] == [record.path.name, "0 found"]
        assert right.splitlines() == ["annotation", f"{n} annotated: {n} missed (yellow)"]
    later, _ = drawn(1.0, 1000)
    top = np.flatnonzero((sure != later).any(axis=(1, 2)))
    assert len(top) > 0 and top.max() < 40  # the heading alone tells them apart
    unsure, captions = drawn(0.01, 500)
    assert not captions[0].splitlines()[1].startswith("0 found")
    assert (unsure != sure).any()


def test_nothing_predicted_no_sheet(
    val: Split, network: DiffusionInstNetwork, quick: Settings, tmp_path: Path
) -> None:
    validation = Validation(network, quick(), val)
    validation.predict([])
    validation.save_sheet(tmp_path / "sheet.png", 1)
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(("world", "sizes"), [(1, [[8, 3]]), (2, [[6], [5]])])
def test_images_come_as_many_as_are_predicted_together(
    val: Split, quick: Settings, world: int, sizes: list[list[int]]
) -> None:
    module = DiffusionInstModule(quick(), pretrained=False)
    assert module.images_at_once == 8

    class Trainer:
        def __init__(self, rank: int) -> None:
            self.global_rank, self.world_size, self.lightning_module = rank, world, module

    seen = []
    for rank in range(world):
        stream = StreamData(val, val, quick())
        stream.trainer = Trainer(rank)  # type: ignore[assignment]
        seen.append(list(stream.val_dataloader()))
    assert [[len(chunk) for chunk in chunks] for chunks in seen] == sizes
    ids = sorted(record.id for chunks in seen for chunk in chunks for record in chunk)
    assert ids == sorted(record.id for record in val.records)
