"""Is a run's folder whole: every image of the plan exactly once, every file as it was written?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diffinst.io.one_line import one_line
from diffinst.scale.fingerprint import Run, loaded
from diffinst.scale.place import Place, place
from diffinst.scale.plan import FILE, Plan, digest
from diffinst.scale.rows import FOLDER, TornPart, name_of, need_pyarrow, read_part


@dataclass
class Verdict:
    """What was found.

    Attributes:
        images: With a row.
        errors: Of these, rows that say why there is no result.
        instances: In all rows.
        problems: A line each; none: the run is whole.
    """

    images: int = 0
    errors: int = 0
    instances: int = 0
    problems: list[str] = field(default_factory=list)


def verify_run(
    out: str | Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Read every part of a run and compare it with the plan; changes nothing.

    Args:
        out: The run's folder or URI.
        progress: Called with (done, total) after each shard.

    Raises:
        AnotherRun: There is no run.
        ValueError: pyarrow is missing.
    """
    need_pyarrow()
    where = place(out)
    run, verdict = loaded(where), Verdict()
    plan = _plan(where, run, verdict)
    if plan is None:
        return verdict
    there = where.names(FOLDER)
    expected = {name_of(shard).rpartition("/")[2] for shard in range(plan.shards)}
    verdict.problems += [
        f"{FOLDER}/{name}: is no part of this run; move it away"
        for name in sorted(there - expected)
    ]
    for shard in range(plan.shards):
        if name_of(shard).rpartition("/")[2] in there:
            _compare(where, plan, shard, run.fingerprint, verdict)
        else:
            verdict.problems.append(
                f"{name_of(shard)}: is missing ({plan.size(shard)} images); run the same "
                "`diffinst predict` again, which does what is left"
            )
        progress(shard + 1, plan.shards)
    return verdict


def _plan(where: Place, run: Run, verdict: Verdict) -> Plan | None:
    """The plan, if it is the one that the run was begun with."""
    import pyarrow as pa

    try:
        plan, own = Plan(where, run.shard_size), digest(where)
    except (pa.ArrowException, OSError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "is torn or damaged"
        verdict.problems.append(f"{FILE}: {what} ({one_line(str(error))[:120]}); begin a new run")
        return None
    if own != run.plan or plan.images != run.images:
        verdict.problems.append(f"{FILE}: is not the one that run.json was written with")
        return None
    return plan


def _compare(where: Place, plan: Plan, shard: int, fingerprint: str, verdict: Verdict) -> None:
    """One part with the plan's images."""
    items = plan.shard(shard)
    try:
        rows = list(read_part(where, shard, fingerprint))
    except TornPart as error:
        verdict.problems.append(str(error))
        return
    if [row.id for row in rows] != [item.id for item in items]:
        verdict.problems.append(
            f"{name_of(shard)}: holds other images than the plan's ({len(rows)} rows, planned are "
            f"{len(items)}); remove it and run the same command again"
        )
        return
    verdict.images += len(rows)
    verdict.errors += sum(row.error is not None for row in rows)
    verdict.instances += sum(len(row.instances) for row in rows)
