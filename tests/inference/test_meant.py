"""One object is picked of the answers to a box and to clicks."""

from __future__ import annotations

import pytest

from diffinst import DiffusionInst
from diffinst.inference.image import EncodedImage
from diffinst.inference.meant import meant
from diffinst.results.instances import Instances
from diffinst.serve.page_files import page_files


@pytest.fixture(scope="module")
def image(nano: DiffusionInst, tmp_path_factory: pytest.TempPathFactory) -> EncodedImage:
    file = tmp_path_factory.mktemp("sample") / "stained.png"
    file.write_bytes(page_files()["samples/stained.png"].content)
    return nano.encode(file)


def on(found: Instances, x: int, y: int) -> bool:
    return bool(found.masks[0, y, x])


def test_one_kind_of_prompt_is_the_prompt(image: EncodedImage) -> None:
    box, click = [40.0, 215.0, 95.0, 256.0], [200.0, 101.0]
    assert meant(image, box, []) == image.prompt(boxes=[box])
    assert meant(image, None, [click]) == image.prompt(points=[click])


def test_what_holds_the_clicks_is_taken_of_a_box_and_clicks_elsewhere(image: EncodedImage) -> None:
    box, click = [40.0, 215.0, 95.0, 256.0], [200.0, 101.0]
    alone = image.prompt(points=[click])
    assert on(alone, 200, 101) and not on(image.prompt(boxes=[box]), 200, 101)
    found = meant(image, box, [click])
    assert len(found) == 1 and on(found, 200, 101)


def test_a_click_inside_the_box_does_not_lead_away_from_it(image: EncodedImage) -> None:
    box = image.prompt(boxes=[[40.0, 215.0, 95.0, 256.0]]).tight().boxes[0]
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    found = meant(image, box.tolist(), [[x, y]])
    both = (found.masks & image.prompt(boxes=[box.tolist()]).masks)[0]
    assert int(both.sum()) > 0.5 * int(found.masks[0].sum()) > 0


def test_nothing_asked_is_refused(image: EncodedImage) -> None:
    with pytest.raises(ValueError, match="nothing is asked for"):
        meant(image, None, [])
