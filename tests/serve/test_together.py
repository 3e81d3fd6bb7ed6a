"""Are images of waiting requests encoded together, and is each answered as if it were alone?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")

from diffinst import DiffusionInst
from diffinst.inference import runner
from diffinst.io.out_of_memory import OutOfMemory
from diffinst.serve.cache import Cache, Key
from diffinst.serve.engine import Done, Engine
from diffinst.serve.limits import Limits
from diffinst.serve.metrics import Metrics
from diffinst.serve.models import Models
from diffinst.serve.sessions import Sessions
from diffinst.serve.training import Trainings

SIZES = ((48, 64), (48, 64), (51, 68), (40, 60), (48, 64))  # 96 x 128 to the network, but for one


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path, most_images=20, most_bytes=10**8)


@pytest.fixture
def engine(tiny: DiffusionInst, sessions: Sessions) -> Engine:
    cache, trainings = Cache(10**9), Trainings(sessions, tiny.device)
    models = Models({"tiny": tiny}, trainings, cache)
    return Engine(models, sessions, Limits(), Metrics(), cache)


@pytest.fixture
def keys(sessions: Sessions) -> list[Key]:
    """Of an image in each of some sessions."""
    found = []
    for i, size in enumerate(SIZES):
        session = Sessions.new_id()
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        found.append(Key(session, sessions.add(session, pixels, "a.png").id, "tiny"))
    return found


@pytest.fixture
def batches(tiny: DiffusionInst, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each batch that is encoded; four at once are allowed, as on a GPU."""
    seen: list[int] = []
    features = tiny.network.features

    def watched(pixels: object) -> object:
        seen.append(len(pixels))  # type: ignore[arg-type]
        return features(pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny.network, "features", watched)
    monkeypatch.setattr(runner, "FEW_AT_ONCE", 4)
    return seen


def answers(
    engine: Engine, keys: list[Key], meanwhile: Callable[[], None] = lambda: None
) -> list[Done | Exception]:
    """What each of several requests gets that wait behind another one."""
    busy = threading.Event()

    def work(left: Callable[[], bool]) -> Generator[None, None, None]:
        busy.wait(30)
        yield

    async def never() -> bool:
        return False

    async def ask() -> list[Done | Exception]:
        first = engine.worker.submit(work, Key(None, "", "tiny"))
        jobs = [
            engine.worker.submit(
                lambda left, key=key: engine.predict(  # type: ignore[misc]
                    key.session, key.image, "tiny", {"threshold": 0.0, "proposals": 20}, left
                ),
                key,
            )
            for key in keys
        ]
        meanwhile()
        busy.set()
        await first.last(never)
        found = await asyncio.gather(*(job.last(never) for job in jobs), return_exceptions=True)
        return [one for one in found if isinstance(one, Done | Exception)]

    found = asyncio.run(ask())
    engine.worker.close()
    return found


def test_images_of_one_padded_size_share_a_batch(
    engine: Engine, keys: list[Key], batches: list[int], tiny: DiffusionInst
) -> None:
    found = answers(engine, [*keys, keys[0]])
    assert batches == [4, 1]
    assert engine.metrics["encoded_together"] == 3
    for key, done in zip(keys, found, strict=False):
        alone = tiny.predict(
            engine.sessions.pixels(key.session, key.image), threshold=0.0, proposals=20
        )
        assert isinstance(done, Done) and len(done.work.current) == len(alone) > 0
        scores = [one.score for one in done.work.current]
        assert scores == pytest.approx(alone.scores.tolist(), abs=1e-4)


def test_on_cpus_each_is_encoded_alone(
    engine: Engine, keys: list[Key], batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FEW_AT_ONCE", 1)
    answers(engine, keys)
    assert batches == [1] * len(keys) and engine.metrics["encoded_together"] == 0


def test_an_image_that_is_removed_meanwhile_is_missing_for_itself_alone(
    engine: Engine, keys: list[Key], batches: list[int]
) -> None:
    gone = keys[2]
    found = answers(engine, keys, lambda: engine.sessions.remove(gone.session, gone.image))
    assert [isinstance(one, Done) for one in found] == [True, True, False, True, True]
    assert batches == [3, 1]


@pytest.mark.parametrize("damage", ["gone", "no image", "broken chunk"])
def test_a_file_that_cannot_be_read_fails_for_itself_alone(
    engine: Engine, keys: list[Key], batches: list[int], damage: str
) -> None:
    file = engine.sessions.file(keys[1].session, keys[1].image)
    content = file.read_bytes()
    file.unlink()
    if damage == "no image":
        file.write_bytes(b"no image")
    elif damage == "broken chunk":  # Pillow has a SyntaxError for it
        file.write_bytes(content.replace(b"IDAT", b"\1DAT", 1))
    found = answers(engine, keys)
    assert [isinstance(one, Done) for one in found] == [True, False, True, True, True]
    assert batches == [3, 1]


def test_where_all_do_not_fit_the_image_goes_alone(
    engine: Engine,
    keys: list[Key],
    batches: list[int],
    tiny: DiffusionInst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = tiny.network.features

    def small(pixels: object) -> object:
        if len(pixels) > 1:  # type: ignore[arg-type]
            raise OutOfMemory("too much")
        return features(pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny.network, "features", small)
    assert all(isinstance(one, Done) for one in answers(engine, keys))
    assert batches == [1] * len(keys)
