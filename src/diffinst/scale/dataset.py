"""Predicting a data set of any size: list once, skip what is done, run, count."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from typing_extensions import Unpack

from diffinst.config import ConfigError, OptionFields, Options, Reading
from diffinst.evaluation.workers import devices
from diffinst.scale import fingerprint as runs
from diffinst.scale.fingerprint import Run
from diffinst.scale.hold import held
from diffinst.scale.inputs import Inputs
from diffinst.scale.job import Job, Listener
from diffinst.scale.local import run_local
from diffinst.scale.messages import Setup
from diffinst.scale.place import absolute, place
from diffinst.scale.prepare import check_parts, plan_of, prepare
from diffinst.scale.progress import Counter, Progress
from diffinst.scale.ray_runner import cluster, run_ray
from diffinst.scale.rows import FOLDER, name_of, need_pyarrow

if TYPE_CHECKING:
    from diffinst.acceleration.optimize import Precision

Engine: TypeAlias = Literal["local", "ray"]
TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class Done:
    """What a run did.

    Attributes:
        images: Of this run, errors included.
        errors: Of these, images that could not be read or predicted; rows say why.
        instances: Found by this run.
        before: Images whose shards were there already.
        repeated: Images that were listed more than once; each is done once.
        seconds: Wall clock of predicting.
        notes: What is to be told of how images were read.
    """

    images: int
    errors: int
    instances: int
    before: int
    repeated: int
    seconds: float
    notes: tuple[str, ...]


def predict_dataset(
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path = "nano-nuclei",
    engine: Engine = "local",
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    shard_size: int | None = None,
    timeout: float = TIMEOUT,
    memory: int | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    reading: Reading | None = None,
    progress: Callable[[Progress], None] = lambda state: None,
    say: Callable[[str], None] = lambda text: None,
    **options: Unpack[OptionFields],
) -> Done:
    """Predict any number of images into Parquet files; goes on where an earlier run was stopped.

    Args:
        images: Folders, list files (.txt, a path or URI a line), Parquet files (`FILE.parquet` or
            `FILE.parquet:COLUMN`), patterns, files, URIs.
        out: Folder or URI; gets plan.parquet, run.json and parts/.
        model: Name, folder, file or hub id of weights.
        engine: `local`: processes of this machine; `ray`: a Ray cluster.
        workers: Processes, or actors; None: one a GPU, or else one a CPU core.
        shard: (i, n): only the i-th of n slices of all shards, counted from 1.
        shard_size: Images of a part; None: 32 to 4096, by their number.
        timeout: Seconds without an answer after which an image counts as hanging.
        memory: Bytes of main memory of one process; None: its fraction of the machine's.
        device: cpu, cuda, ...; None: GPUs where there are any.
        precision: fp32, bf16 or auto.
        reading: As in `DiffusionInst.predict`.
        progress: Gets the state after each image (each shard, on Ray).
        say: Told what is worth a line.
        **options: As in `DiffusionInst.predict`.

    Raises:
        ValueError: Something given is out of range, cannot be found, or needs a package.
        AnotherRun: `out` holds another run; says what differs.
        TornPart: A part that is there is damaged, or another run's.
        BlockingIOError: Another driver is at work in `out`.
        OSError: Something cannot be written; parts that are there stay.
        ChildProcessError: Processes cannot be started, or are lost again and again.
    """
    _check(images, out, engine, workers, shard, shard_size, timeout)
    need_pyarrow()
    inputs, where = Inputs.of(images), place(out)
    notes: dict[str, None] = {}
    with ExitStack() as stack:
        found = stack.enter_context(cluster(say)) if engine == "ray" else None
        if device is None:
            device = "cuda" if (gpus_here() if found is None else found.gpus) else "cpu"
        asked, own = _asked(model, device, precision, reading, inputs, options)
        prepared = stack.enter_context(held(where.local, shard, say))
        run = prepare(where, replace(asked, shard_size=shard_size or 0), inputs, precision, say)
        prepared()
        plan = plan_of(where, run)
        mine = range(plan.shards) if shard is None else range(shard[0] - 1, plan.shards, shard[1])
        there = where.names(FOLDER)
        todo = tuple(k for k in mine if name_of(k).rpartition("/")[2] not in there)
        check_parts(where, sorted(set(mine) - set(todo)), run)
        total = sum(plan.size(k) for k in mine)
        before = total - sum(plan.size(k) for k in todo)
        counter = Counter(total, before, progress)
        job = Job(
            absolute(out),
            run.shard_size,
            todo,
            _setup(run, own, device),
            run.fingerprint,
            timeout,
            memory,
        )
        listener = Listener(counter, notes.setdefault)
        if todo and found is not None:
            run_ray(job, found, workers, listener)
        elif todo:
            count = workers or gpus_here() or cores()
            run_local(job, devices(None if device == "cuda" else device, count), listener)
    return Done(
        counter.done,
        counter.errors,
        counter.instances,
        before,
        run.repeated,
        counter.seconds,
        tuple(notes),
    )


def gpus_here() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count()


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _check(
    images: Sequence[str | Path] | str | Path,
    out: str | Path,
    engine: str,
    workers: int | None,
    shard: tuple[int, int] | None,
    shard_size: int | None,
    timeout: float,
) -> None:
    if engine not in ("local", "ray"):
        raise ValueError(f"--on {engine}: there is no such engine; allowed are local and ray")
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(
            f"--shard {shard[0]}/{shard[1]}: of {shard[1]} slices, the first is 1/{shard[1]}, the "
            f"last {shard[1]}/{shard[1]}"
        )
    for text in map(str, [*([images] if isinstance(images, str | Path) else images), out]):
        if text.startswith("memory:"):
            raise ValueError(
                f"{text}: the memory of one process, which the others of a run do not see; give a "
                "folder, or an address such as s3://bucket/folder"
            )
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}: give at least 1")
    if shard_size is not None and shard_size < 1:
        raise ValueError(f"--shard-size {shard_size}: give at least 1")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"--timeout {timeout}: give seconds, more than 0")


def _asked(
    model: str | Path,
    device: str,
    precision: Precision,
    reading: Reading | None,
    inputs: Inputs,
    options: OptionFields,
) -> tuple[Run, str]:
    """This run as it would be remembered, and what its processes load."""
    import torch

    from diffinst.acceleration.optimize import resolved
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.weights import store

    folder = store.locate(model)
    loaded = DiffusionInst.from_pretrained(folder)
    chosen = Options.of(loaded.config, **options)
    if chosen.seconds is not None:
        raise ConfigError(
            f"seconds is {chosen.seconds:g}, but parts have to be the same bytes whenever they are "
            "made, and a time limit hangs on the clock; give steps and proposals instead"
        )
    how = (Reading() if reading is None else reading).over(loaded.config.preprocess)
    config = json.dumps(loaded.config.to_dict(), sort_keys=True, default=str)
    values = chosen.model_dump(mode="json")
    seed = values.pop("seed")
    kind = torch.device(device)
    run = Run(
        weights=runs.hash_of(folder / store.WEIGHTS_FILE),
        config=hashlib.sha256(config.encode()).hexdigest(),
        device=kind.type,
        precision=resolved(precision, kind if gpus_here() else torch.device("cpu")),
        options=values,
        reading=how.model_dump(mode="json"),
        seed=seed,
        classes=loaded.class_names,
        asked=inputs.asked,
        root=inputs.root,
    )
    return run, absolute(folder) if Path(model).exists() else str(model)


def _setup(run: Run, model: str, device: str) -> Setup:
    return Setup(
        model=model,
        weights=run.weights,
        device=device,
        precision=run.precision,
        options=run.options,
        reading=run.reading,
        seed=run.seed,
        root=run.root,
    )
