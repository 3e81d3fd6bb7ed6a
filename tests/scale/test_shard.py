"""Are images that end their process found and recorded, and all others predicted as ever?

The crash, the hang and the appetite come from decoders that a `sitecustomize` registers in every
process that is started; they act for real.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from diffinst.scale.fingerprint import hash_of
from diffinst.scale.inputs import Entry
from diffinst.scale.messages import Item, Row, Setup
from diffinst.scale.plan import image_id
from diffinst.scale.shard import chunks, do_shard
from diffinst.scale.watch import Watched, memory_each, resident
from diffinst.weights.store import WEIGHTS_FILE

TIMEOUT = 60.0  # seconds: machines that run tests are busy
POISON = """
import os, signal, time
from PIL import Image, ImageFile

class Poison(ImageFile.ImageFile):
    format = "POISON"
    pairs = 0
    def _open(self):
        kind = self.fp.read(10)[6:]
        if kind == b"dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == b"hang":
            time.sleep(10**6)
        if kind == b"eats":
            eaten = []
            while True:
                eaten.append(b"x" * 2**24)
                time.sleep(0.001)
        if kind == b"pair":  # bears no other one beside it
            Poison.pairs += 1
            time.sleep(3)
            if Poison.pairs > 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            Poison.pairs -= 1
            raise SyntaxError("is no image")

Image.register_open("POISON", Poison, lambda start: start.startswith(b"POISON"))
"""


def items_of(folder: Path, names: list[str]) -> list[Item]:
    return [Item(image_id(Entry(name, 1, 1)), name, 1) for name in names]


@pytest.fixture
def setup(model: Path, images: Path) -> Setup:
    return Setup(
        model=str(model),
        weights=hash_of(model / WEIGHTS_FILE),
        device="cpu",
        precision="fp32",
        options={"proposals": 6, "max_detections": 2, "threshold": 0.0},
        reading={},
        seed=0,
        root=str(images),
    )


def test_chunks_begin_at_fixed_places() -> None:
    some = items_of(Path(), [str(i) for i in range(20)])
    assert [len(chunk) for chunk in chunks(some, 1)] == [8, 8, 4]
    assert [item.path for chunk in chunks(some, 2) for item in chunk] == [str(i) for i in range(20)]
    assert list(chunks([], 1)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_killed_process_is_replaced_and_the_rows_are_the_same(setup: Setup, images: Path) -> None:
    some = items_of(images, sorted(os.listdir(images)))
    with closing(Watched(setup, TIMEOUT, None, print)) as watched:
        expected = do_shard(watched, some)
        assert [row.error for row in expected] == [None] * 4
        assert all(len(row.instances) == 2 for row in expected)
        pid = watched.pid
        seen: list[Row] = []
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert do_shard(watched, some, seen.append) == expected == seen
        assert watched.pid != pid


def test_a_process_that_cannot_begin_says_why(setup: Setup, tmp_path: Path) -> None:
    import msgspec

    wrong = msgspec.structs.replace(setup, weights="0")
    with (
        closing(Watched(wrong, TIMEOUT, None, print)) as watched,
        pytest.raises(ChildProcessError, match="its weights are others than at the start"),
    ):
        do_shard(watched, items_of(tmp_path, ["a"]))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at memory in /proc")
def test_crash_hang_and_appetite_are_rows(
    setup: Setup, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    good = sorted(os.listdir(images))
    with closing(Watched(setup, TIMEOUT, None, print)) as watched:
        expected = do_shard(watched, items_of(images, good))
    monkeypatch.setenv("PYTHONPATH", path)
    for kind in ("dies", "hang", "eats"):
        (images / f"{kind}.png").write_bytes(b"POISON" + kind.encode())
    names = [good[0], "dies.png", good[1], "hang.png", "eats.png", *good[2:]]
    with closing(Watched(setup, TIMEOUT, 2**31, print)) as watched:
        rows = do_shard(watched, items_of(images, names))
    found = {row.path: row for row in rows}
    assert [row.path for row in rows] == names
    assert found["dies.png"].error == (
        "dies.png: the process that read and predicted it ended (signal 11)"
    )
    assert found["hang.png"].error == "hang.png: no answer within 60 s"
    assert found["eats.png"].error == "eats.png: took more memory than one process may have"
    assert [found[name] for name in good] == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_images_that_pass_alone_but_not_together_are_done_alone(
    setup: Setup, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr("diffinst.scale.shard.LOSSES", 3)
    for name in ("p.png", "q.png"):
        (images / name).write_bytes(b"POISONpair")
    names = ["p.png", "q.png", "000.png"]
    with closing(Watched(setup, TIMEOUT, None, print)) as watched:
        rows = do_shard(watched, items_of(images, names))
    assert [row.path for row in rows] == names
    for row in rows[:2]:  # read, each alone, and found to be none
        assert row.error is not None and "is not an image" in row.error
    assert rows[2].error is None


def test_memory_of_a_process() -> None:
    if sys.platform.startswith("linux"):
        assert resident(os.getpid()) > 2**20
        whole, half = memory_each(1), memory_each(2)
        assert whole is not None and half is not None and half == whole // 2
    assert resident(2**30) == 0  # no such process
