"""The catalogue is complete, and a refusal speaks its words."""

from pathlib import Path

import pytest

from diffinst.datasets.problems import DatasetError, Place, Refusal, catalogue, shown


def test_every_kind_has_its_words() -> None:
    for code, kind in catalogue().items():
        assert kind.severity in ("breaks", "spoils", "note"), code
        assert kind.unit, code
        assert kind.what.endswith((".", ")", ":")), code
        assert kind.advice.endswith((".", "?")), code
        assert not kind.repair.endswith("."), code


def test_refusal_names_file_entry_and_remedy() -> None:
    known = shown(range(7))
    with pytest.raises(DatasetError) as caught:
        Refusal(Path("a.json")).note(
            "unknown-image", Place(9, "", 3), where="annotation 3", given=9, known=known
        )
    assert caught.value.code == "unknown-image"
    assert str(caught.value) == (
        "a.json: annotation 3: image_id 9 is not among the ids in 'images' (0, 1, 2, 3, 4 and 2 "
        "more); add that image or remove the annotation"
    )


def test_place_says_what_is_known() -> None:
    assert str(Place()) == ""
    assert str(Place(2, "a.png", 7, "odd")) == "annotation 7, image 2 (a.png): odd"
    assert str(Place(file_name="a.png")) == "a.png"
