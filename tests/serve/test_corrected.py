"""Which accepted images are trained on, and which are held out?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst.datasets.load import load_split
from diffinst.results.crops import CompressedRLE
from diffinst.serve import tiles, window
from diffinst.serve.corrected import Corrected, corrected, cut, write_dataset
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About, Sessions
from diffinst.serve.work import Object, Work


def square(score: float, label: int = 0, *, kept: bool = False) -> Object:
    mask = np.zeros((8, 8), np.uint8, order="F")
    mask[2:5, 2:6] = 1
    encoded = coco_mask.encode(mask)
    rle: CompressedRLE = {"size": [8, 8], "counts": encoded["counts"].decode()}
    return Object(0, label, score, [2, 2, 6, 5], 12, rle, kept)


def images(count: int, empty: tuple[int, ...] = ()) -> list[Corrected]:
    return [
        Corrected(About(f"{i:x}", "a", 8, 8, i), [] if i in empty else [square(1)])
        for i in range(count)
    ]


def ids(chosen: list[Corrected]) -> set[str]:
    return {one.about.id for one in chosen}


def test_a_quarter_is_held_out_those_with_objects_first() -> None:
    train, held = cut(images(5), (), ())
    assert (ids(train), ids(held)) == ({"2", "3", "4"}, {"0", "1"})  # 5 / 4, rounded up
    train, held = cut(images(8, empty=(0, 2)), (), ())
    assert ids(held) == {"1", "3"} and len(train) == 6


def test_later_trainings_hold_out_the_same_images_and_new_ones_alone() -> None:
    train, held = cut(images(12), trained_on={"2", "3", "4"}, held_out={"0", "1"})
    assert ids(held) == {"0", "1", "5"} and {"2", "3", "4"} <= ids(train)
    train, held = cut(images(9), trained_on={str(i) for i in range(2, 9)}, held_out={"0", "1"})
    assert ids(held) == {"0", "1"}  # three are due, but all others were learned from


@pytest.mark.parametrize(
    ("chosen", "trained_on", "said"),
    [
        (images(4), (), "at least 5 accepted images"),
        (images(6), tuple("012345"), "no image with objects is left to hold out"),
        (images(6, empty=(2, 3, 4, 5)), (), "no object is left to train on"),
        (images(6, empty=tuple(range(6))), (), "no image with objects"),
    ],
)
def test_what_does_not_do_is_said(
    chosen: list[Corrected], trained_on: tuple[str, ...], said: str
) -> None:
    with pytest.raises(Refused, match=said) as refused:
        cut(chosen, trained_on, ())
    assert refused.value.status == 409


def test_the_dataset_has_what_was_shown_when_it_was_accepted(tmp_path: Path) -> None:
    sessions, session = Sessions(tmp_path / "s", 9, 10**6), Sessions.new_id()
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for i, model in enumerate(("a", "a", "b", "a")):
        about = sessions.add(session, pixels + i, "../x.png")

        def work(before: Work, model: str = model) -> Work:
            new = before.numbered([square(0.9, 1), square(0.4), square(0.1, kept=True)])
            begun = before.become([one.id for one in new], new)
            return Work.from_json({**begun.approved(0.5).to_json(), "model": model})

        sessions.change(session, about.id, work)
    last = sessions.images(session)[-1].id
    sessions.change(session, last, lambda before: before.without([1]))  # no longer accepted
    found = corrected(sessions, session, {"a"})
    assert ids(found) == {one.id for one in sessions.images(session)[:2]}
    assert [one.score for one in found[0].objects] == [0.9, 0.1]
    first = sessions.images(session)[0].id
    sessions.change(session, first, Work.undone)  # the state before was not accepted
    assert ids(corrected(sessions, session, {"a"})) == {sessions.images(session)[1].id}
    sessions.change(session, first, lambda before: before.redone().approved(0.5))
    for model, counts in (("b", False), ("a", True), ("", True)):
        empty = Work.from_json({**Work().approved(0.5).to_json(), "model": model})
        sessions.change(session, last, lambda _, empty=empty: empty)  # type: ignore[misc]
        assert (last in ids(corrected(sessions, session, {"a"}))) == counts

    splits = {"train": found[:1], "val": found[1:]}
    write_dataset(tmp_path / "data", sessions, session, splits, ("one", "two"))
    for name, image in (("train", found[0]), ("val", found[1])):
        split = load_split(tmp_path / "data", name)
        (record,) = split.records
        assert split.classes == ("one", "two") and record.path.stem == image.about.id
        assert len(record.annotations) == 2


def test_large_images_are_cut_into_parts_for_models_that_look_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 60)
    monkeypatch.setattr(window, "PART", 4)
    sessions, session = Sessions(tmp_path / "s", 9, 10**6), Sessions.new_id()
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    one = Corrected(sessions.add(session, pixels, "a.png"), [square(0.9)])
    for in_parts, count in ((True, 4), (False, 1)):
        data = tmp_path / str(in_parts)
        split = {"train": [one]}
        write_dataset(data, sessions, session, split, ("one", "two"), in_parts=in_parts)
        records = load_split(data, "train").records
        assert len(records) == count
        assert sum(len(record.annotations) for record in records) == count  # each has a part of it
    part = np.array(Image.open(tmp_path / "True" / "train" / f"{one.about.id}-4-0.png"))
    assert np.array_equal(part, pixels[4:, :4])
