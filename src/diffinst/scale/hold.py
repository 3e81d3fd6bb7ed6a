"""Who is at work in a run's folder: one driver of all shards, or one for each slice of an array."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from diffinst.io.atomic import remove_unfinished
from diffinst.io.lock import alone_in, alone_with
from diffinst.scale.rows import FOLDER

PAUSE = 0.5  # seconds between two tries to be the one that prepares
_PATIENCE = 5.0  # seconds, then a line says what is waited for


@contextmanager
def held(
    folder: Path | None, slice_: tuple[int, int] | None, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Hold a run's folder while the block runs.

    Yields a function to call once the run is prepared (the plan is written): until then others that
    begin wait. Behind a URI nothing is held: there two drivers do the same work twice, and write
    the same bytes.

    Args:
        folder: Of this machine; None: behind a URI.
        slice_: The slice and how many there are; None: all shards.
        say: Told what is waited for.

    Raises:
        BlockingIOError: Another driver does the same shards; names the holder.
    """
    if folder is None:
        yield lambda: None
        return
    with ExitStack() as preparing, ExitStack() as working:
        _wait(preparing, folder, say)
        _refuse_others(folder, slice_)
        if slice_ is None:
            working.enter_context(alone_in(folder))
            for part in (folder, folder / FOLDER):
                remove_unfinished(part)
        else:
            working.enter_context(alone_with(folder / _name(*slice_)))
        yield preparing.close


def _name(index: int, count: int) -> str:
    return f"slice-{index}-of-{count}"


def _wait(stack: ExitStack, folder: Path, say: Callable[[str], None]) -> None:
    """Become the one that prepares: jobs of an array begin together."""
    begin = time.monotonic()
    told = False
    while True:
        try:
            stack.enter_context(alone_with(folder / "preparing"))
        except BlockingIOError as error:
            if not told and time.monotonic() - begin > _PATIENCE:
                say(f"waiting for who writes the plan: {error}")
                told = True
            time.sleep(PAUSE)
        else:
            return


def _refuse_others(folder: Path, slice_: tuple[int, int] | None) -> None:
    """Nobody does all shards now, and for all shards nobody does a slice."""
    with alone_in(folder):
        pass
    if slice_ is None:
        for lock in folder.glob("slice-*.lock"):
            with alone_with(lock.with_suffix("")):
                pass
