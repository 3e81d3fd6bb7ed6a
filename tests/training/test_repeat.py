"""Images of rare classes are repeated as the LVIS paper says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.training.repeat import colour_factors, repeat_factors

SQUARE = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]


def split_of(root: Path, images: list[list[int]], classes: int) -> Split:
    """Images with objects of these classes."""
    (root / "annotations").mkdir()
    (root / "train").mkdir()
    for i in range(len(images)):
        (root / "train" / f"{i}.jpg").touch()
    objects = [(i, label) for i, labels in enumerate(images) for label in labels]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6} for i in range(len(images))
        ],
        "annotations": [
            {"id": j, "image_id": i, "category_id": label, "segmentation": [SQUARE]}
            for j, (i, label) in enumerate(objects)
        ],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(classes)],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return load_split(root, "train")


def test_factors_by_hand(tmp_path: Path) -> None:
    # Ten images. Class 0 is on eight (f = 0.8), class 1 on two (f = 0.2; twice on one of them),
    # class 2 on one (f = 0.1), class 3 on none. With t = 0.4: r_0 = max(1, sqrt(0.5)) = 1,
    # r_1 = sqrt(0.4 / 0.2) = sqrt(2), r_2 = sqrt(0.4 / 0.1) = 2.
    images = [[0], [0], [0], [0], [0], [0], [0, 1, 1], [0, 1, 2], [], []]
    split = split_of(tmp_path, images, 4)
    expected = [1, 1, 1, 1, 1, 1, np.sqrt(2), 2, 1, 1]
    assert repeat_factors(split, 0.4) == pytest.approx(expected)
    assert repeat_factors(split, 0.0).tolist() == [1.0] * 10
    assert repeat_factors(split, 0.1).tolist() == [1.0] * 10  # f = t is not rare
    assert repeat_factors(split.merged(), 0.4).tolist() == [1.0] * 10


def test_a_split_without_objects_or_images(tmp_path: Path) -> None:
    assert repeat_factors(split_of(tmp_path, [[], []], 2), 0.5).tolist() == [1.0, 1.0]
    (tmp_path / "nothing").mkdir()
    factors = repeat_factors(split_of(tmp_path / "nothing", [], 2), 0.5)
    assert (factors.shape, factors.dtype) == ((0,), np.dtype(np.float64))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_is_a_share(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold is .*, allowed is 0 to 1"):
        repeat_factors(split_of(tmp_path, [[0]], 1), threshold)


def test_real_annotations(shared_dir: Path) -> None:
    """Each image's factor is the largest of its classes', counted the slow way."""
    split = load_split(shared_dir / "datasets" / "lvis_fixture", "val_100", images=False)
    on = [{a.label for a in record.annotations} for record in split.records]
    share = [sum(label in labels for labels in on) / 100 for label in range(len(split.classes))]
    expected = [
        max((max(1.0, (0.05 / share[label]) ** 0.5) for label in labels), default=1.0)
        for labels in on
    ]
    assert repeat_factors(split, 0.05) == pytest.approx(expected)
    assert max(expected) == pytest.approx(5**0.5)  # classes on one image of a hundred


def test_images_in_colour_are_repeated(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[0], [], [0]], 1)
    for record, colour in zip(split.records, ["grey", "pink", "black"], strict=True):
        Image.new("RGB", (6, 4), colour).save(record.path)
    assert colour_factors(split, 2.5).tolist() == [1, 2.5, 1]
    one_channel = Reading(channel=0)  # read so, nothing is in colour
    assert colour_factors(split, 2.5, one_channel).tolist() == [1, 1, 1]
