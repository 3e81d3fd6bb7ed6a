"""One shard: its images predicted chunk by chunk, those that kill the process found and recorded.

A chunk is what is done again when a process is lost. Chunks begin at fixed places of a shard, so
that images share a batch with the same ones however often a run is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from diffinst.io.one_line import one_line
from diffinst.scale.messages import Item, Row
from diffinst.scale.watch import Watched, WorkerTrouble

BATCHES = 8  # of a chunk, where all its images are of one size
DEATHS = 2  # of the process with one image alone in hand, until the image is to blame
TOGETHER = 2  # losses of a chunk without an image to blame, until its images are done one by one
LOSSES = 20  # of a chunk, each without an image to blame: something else kills the processes


def chunks(items: Sequence[Item], at_once: int) -> Iterator[Sequence[Item]]:
    """A shard's images, some at a time.

    Args:
        items: In the plan's order.
        at_once: Images that go through the model together.
    """
    size = BATCHES * at_once
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def predict_chunk(
    watched: Watched, items: Sequence[Item], answered: Callable[[Row], None]
) -> list[Row]:
    """A row for each image, whatever happens to the process.

    Args:
        watched: Does the work, and is replaced when it is lost.
        items: Images of a chunk.
        answered: Gets each row once.

    Raises:
        ChildProcessError: Processes cannot be started or go on, or end again and again without an
            image that is to blame.
    """
    settled: dict[str, Row] = {}  # of images that are to blame, or that were done one by one
    unexplained = 0
    for _ in range(LOSSES):
        rest = [item for item in items if item.id not in settled]
        rows: dict[str, Row] = {}
        try:
            if unexplained < TOGETHER:
                watched.predict(rest, lambda row, rows=rows: rows.update({row.id: row}))  # type: ignore[misc]
            else:  # large images that are read ahead fit into memory alone, but not together
                for item in rest:
                    watched.predict([item], lambda row: settled.update({row.id: row}))
        except WorkerTrouble as trouble:
            last, done = trouble, rows.keys() | settled.keys()
            bad = _to_blame(watched, [item for item in rest if item.id not in done])
            settled.update(bad)
            unexplained += not bad
        else:
            rows |= settled
            for item in items:
                answered(rows[item.id])
            return [rows[item.id] for item in items]
    raise ChildProcessError(
        f"processes that predict were lost {LOSSES} times in one place ({last}), with no image to "
        "blame; see what ends them (memory, a time limit) and run the same command again"
    )


def do_shard(
    watched: Watched, items: Sequence[Item], answered: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """The rows of a shard, in order."""
    rows: list[Row] = []
    for chunk in chunks(items, watched.at_once):
        rows += predict_chunk(watched, chunk, answered)
    return rows


def _to_blame(watched: Watched, items: Sequence[Item]) -> dict[str, Row]:
    """Rows of the images that end a process when it has each of them alone in hand."""
    return {item.id: row for item in items if (row := _blamed(watched, item)) is not None}


def _blamed(watched: Watched, item: Item) -> Row | None:
    """An image's row if it is to blame; who ends processes from outside seldom hits it twice."""
    for _ in range(DEATHS):
        try:
            watched.predict([item], lambda row: None)
        except WorkerTrouble as trouble:
            reason = str(trouble)
            if trouble.hung:
                break
        else:
            return None
    return Row(item.id, item.path, item.bytes, error=one_line(f"{item.path}: {reason}"))
