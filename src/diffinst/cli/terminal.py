"""What the commands say to the person at the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from diffinst.io.disk import readable

EVERY = 10.0  # seconds
SHOWN = 10  # lines of a list
console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Lines for a person, on stderr: brackets as they are, paths never wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def say_some(title: str, lines: Sequence[str]) -> None:
    """The first lines below a title; nothing where there are none."""
    if not lines:
        return
    say(title)
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  and {len(lines) - SHOWN} more")


def progress_lines(
    label: str, amount: Callable[[int], str] = str
) -> Callable[[int, int | None], None]:
    """A function to call with (done, total) that says a line every `EVERY` seconds, and the last.

    Args:
        label: What is going on.
        amount: Makes a number readable.
    """
    said, last = time.monotonic(), (-1, -1)

    def advance(done: int, total: int | None) -> None:
        nonlocal said, last
        now = time.monotonic()
        if (done == total or now - said >= EVERY) and (done, total or -1) != last:
            said, last = now, (done, total or -1)
            console.print(
                f"{label} {amount(done)}" + (f"/{amount(total)}" if total else ""), soft_wrap=True
            )

    return advance


@contextmanager
def progress_bar(
    label: str, *, shown: bool = True, in_bytes: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr; yields a function to call with (done, total).

    Where stderr is no terminal there is a line now and then instead, and one at the end.
    """
    if shown and not console.is_terminal:
        yield progress_lines(label, readable if in_bytes else str)
        return
    counts = (MofNCompleteColumn(), TimeElapsedColumn())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else counts),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
