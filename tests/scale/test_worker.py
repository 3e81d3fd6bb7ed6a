"""Does a process that predicts answer every item, and tell a bad image from a bad machine?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from diffinst.scale.fingerprint import hash_of
from diffinst.scale.messages import Answer, Item, Ready, Row, Setup
from diffinst.scale.worker import _ready
from diffinst.weights.store import WEIGHTS_FILE

Ask = Callable[[Sequence[Item]], list[Answer]]


@pytest.fixture
def ask(model: Path, images: Path) -> Ask:
    """Asks a process's own function, in this process, for items."""
    setup = Setup(
        str(model), hash_of(model / WEIGHTS_FILE), "cpu", "fp32",
        {"proposals": 6, "max_detections": 2, "threshold": 0.0}, {}, 0, str(images),
    )  # fmt: skip
    answers: list[Answer] = []
    predict = _ready(setup, answers.append)
    assert isinstance(answers.pop(), Ready)

    def asked(items: Sequence[Item]) -> list[Answer]:
        predict(items)
        return answers

    return asked


def test_two_items_of_one_path_are_two_rows(ask: Ask) -> None:
    """Their ids, and so their noise, differ."""
    one, two = ask([Item("a", "000.png"), Item("b", "000.png")])
    assert isinstance(one, Row) and isinstance(two, Row)
    assert (one.id, two.id) == ("a", "b") and one.path == two.path
    assert one.instances != two.instances


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names there are any bytes")
def test_names_that_are_no_text_are_read(ask: Ask, images: Path) -> None:
    shutil.copy(images / "000.png", os.path.join(os.fsencode(images), b"a\xff.png"))
    good, gone = ask([Item("a", r"a\xff.png"), Item("b", r"a\xfe.png")])
    assert isinstance(good, Row) and good.error is None and good.path == r"a\xff.png"
    assert isinstance(gone, Row) and gone.error is not None
    assert gone.error.startswith(r"a\xfe.png: there is no such file")
