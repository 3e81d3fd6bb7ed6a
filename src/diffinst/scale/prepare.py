"""What a run's folder holds before work begins: its run, its plan, and no other run's parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from diffinst.scale import fingerprint as runs
from diffinst.scale.fingerprint import AnotherRun, Run
from diffinst.scale.hold import PAUSE
from diffinst.scale.inputs import Inputs
from diffinst.scale.place import Place, place, write
from diffinst.scale.plan import FILE, Plan, usual_shard_size, write_plan
from diffinst.scale.rows import FOLDER, check_owner

if TYPE_CHECKING:
    from diffinst.acceleration.optimize import Precision

PATIENCE = 600.0  # seconds that another driver may take to write its plan behind a URI
READERS = 16  # threads that look at parts


def prepare(
    where: Place, asked: Run, inputs: Inputs, precision: Precision, say: Callable[[str], None]
) -> Run:
    """The folder's run, checked; or this one, with its images listed and its plan written.

    Raises:
        AnotherRun: The folder holds another run, or parts of nobody knows which.
    """
    parts = where.names(FOLDER)  # looked at first: run.json is there before the first part
    found = runs.load(where)
    if found is None and parts:
        raise AnotherRun(
            f"{where}: holds parts but no {runs.FILE}, so nobody knows of which run; choose "
            f"another --out, or move {FOLDER}/ away"
        )
    if found is None:
        found = _begin(where, asked, inputs, say)
    if precision == "auto":  # chosen once, not by each machine
        asked = replace(asked, precision=found.precision)
    found.check(asked, where)
    return found


def _begin(where: Place, asked: Run, inputs: Inputs, say: Callable[[str], None]) -> Run:
    """List the images; of several drivers the first to write its run decides, for all.

    Behind a URI nothing can be held. There the plan is written after run.json, and only by who
    listed the same images, so that it cannot be another run's.
    """
    with ExitStack() as stack:
        first = where
        if where.local is None:
            first = place(stack.enter_context(TemporaryDirectory(prefix="diffinst-")))
        planned = write_plan(first, inputs, lambda done: say(f"listed {done:,} images"))
        run = replace(
            asked,
            images=planned.images,
            repeated=planned.repeated,
            shard_size=asked.shard_size or usual_shard_size(planned.images),
            plan=planned.digest,
        )
        kept = runs.save(where, run)
        if first is not where and kept.plan == run.plan:
            write(where, FILE, first.read(FILE))
        elif kept.plan != run.plan:
            say("another driver, which began first, has listed other images: its plan counts")
    return kept


def plan_of(where: Place, run: Run, patience: float = PATIENCE) -> Plan:
    """The run's plan, which behind a URI another driver may still be writing.

    Raises:
        AnotherRun: It does not come, or is another run's.
    """
    end = time.monotonic() + (patience if where.local is None else 0.0)
    while True:
        try:
            plan = Plan(where, run.shard_size)
        except FileNotFoundError as error:
            if time.monotonic() >= end:
                raise AnotherRun(
                    f"{where}: {FILE} is missing; choose another --out, or remove {runs.FILE} "
                    f"and {FOLDER}/, too"
                ) from error
            time.sleep(PAUSE)
        else:
            if plan.images != run.images:
                raise AnotherRun(f"{where}: {FILE} is not the one of {runs.FILE}; begin a new run")
            return plan


def check_parts(where: Place, shards: Sequence[int], run: Run) -> None:
    """Refuse to skip parts that are there but another run's.

    Raises:
        TornPart: Names one.
    """
    with ThreadPoolExecutor(READERS) as threads:
        for _ in threads.map(lambda shard: check_owner(where, shard, run.fingerprint), shards):
            pass
