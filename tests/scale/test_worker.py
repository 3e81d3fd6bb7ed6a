"""Does a process that predicts answer every item, and tell a bad image from a bad machine?"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from diffinst.config import Reading
from diffinst.scale.fingerprint import hash_of
from diffinst.scale.messages import Answer, Item, Ready, Row, Setup
from diffinst.scale.shard import predict_chunk
from diffinst.scale.watch import Watched
from diffinst.scale.worker import Outage, _read, _ready
from diffinst.weights.store import WEIGHTS_FILE

Ask = Callable[[Sequence[Item]], list[Answer]]


def setup_of(model: Path, images: Path) -> Setup:
    return Setup(
        str(model), hash_of(model / WEIGHTS_FILE), "cpu", "fp32",
        {"proposals": 6, "max_detections": 2, "threshold": 0.0}, {}, 0, str(images),
    )  # fmt: skip


@pytest.fixture
def ask(model: Path, images: Path) -> Ask:
    """Asks a process's own function, in this process, for items."""
    answers: list[Answer] = []
    predict = _ready(setup_of(model, images), answers.append)
    assert isinstance(answers.pop(), Ready)

    def asked(items: Sequence[Item]) -> list[Answer]:
        answers.clear()
        predict(items)
        return answers.copy()

    return asked


def test_two_items_of_one_path_are_two_rows(ask: Ask) -> None:
    """Their ids, and so their noise, differ."""
    one, two = ask([Item("a", "000.png"), Item("b", "000.png")])
    assert isinstance(one, Row) and isinstance(two, Row)
    assert (one.id, two.id) == ("a", "b") and one.path == two.path
    assert one.instances != two.instances


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names there are any bytes")
def test_names_that_are_no_text_are_read(ask: Ask, images: Path) -> None:
    shutil.copy(images / "000.png", images / "a\udcff.png")
    good, gone = ask([Item("a", r"a\xff.png"), Item("b", r"a\xfe.png")])
    assert isinstance(good, Row) and good.error is None and good.path == r"a\xff.png"
    assert isinstance(gone, Row) and gone.error is not None
    assert gone.error.startswith(r"a\xfe.png: there is no such file")


def test_a_folder_that_is_gone_ends_the_process_and_a_file_does_not(ask: Ask, images: Path) -> None:
    (images / "broken.png").write_bytes(b"no image")
    gone, broken = ask([Item("a", "gone.png"), Item("b", "broken.png")])
    assert isinstance(gone, Row) and gone.error is not None and not gone.fetched
    assert isinstance(broken, Row) and broken.error is not None and broken.fetched
    images.rename(images.with_name("moved"))
    with pytest.raises(Outage, match=r"in: the images' folder is gone; mount it and run"):
        ask([Item("c", "000.png")])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file that is always full")
def test_a_full_disk_ends_the_process(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> tuple[int, str]:
        link = tmp_path / "full.png"
        link.symlink_to("/dev/full")
        return os.open(os.devnull, os.O_RDONLY), str(link)

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(Outage, match=r"the disk \(or your quota\) is full; free some space there"):
        _read(f"file://{images}/000.png", "", Reading())


def test_a_process_that_cannot_go_on_ends_the_run_without_a_row(model: Path, images: Path) -> None:
    """No image is to blame for a folder that vanishes while the process is at work."""
    some = [Item(name, f"{name}.png") for name in ("000", "001")]
    with closing(Watched(setup_of(model, images), 60.0, None, print)) as watched:
        assert watched.at_once == 1
        images.rename(images.with_name("moved"))
        with pytest.raises(ChildProcessError, match="the images' folder is gone"):
            predict_chunk(watched, some, lambda row: pytest.fail(f"{row}"))
