"""A tiny model and a few images, and annotations made into results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from diffinst.datasets.load import load_split
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import compressed
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.evaluation.source import Source
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.convert import CocoResult


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six val images of discs, boxes and triangles; to be read only."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=0, val=6, size=(48, 64), objects=(2, 4))


@pytest.fixture(scope="session")
def shapes(shapes_dir: Path) -> Split:
    return load_split(shapes_dir, "val")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The tiny model with three classes, untrained, from a folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return Source.load(DiffusionInst.from_preset("tiny").save_pretrained(folder))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over several threads differ in their last bits from those over one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def truth() -> Callable[..., list[CocoResult]]:
    """Takes an image, its split and a score: the annotations as if they had been predicted."""

    def as_found(record: ImageRecord, split: Split, score: float = 0.9) -> list[CocoResult]:
        results: list[CocoResult] = []
        for a in record.annotations:
            rle = compressed(a.segmentation, record.height, record.width)
            counts = rle["counts"]
            text = counts.decode() if isinstance(counts, bytes) else str(counts)
            x0, y0, x1, y1 = a.box
            results.append(
                {
                    "image_id": record.id,
                    "category_id": split.category_ids[a.label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                    "segmentation": {"size": [record.height, record.width], "counts": text},
                }
            )
        return results

    return as_found
