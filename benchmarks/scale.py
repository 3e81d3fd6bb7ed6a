"""What do shards cost? The planner at millions of paths, two processes against one, Ray's price.

    python benchmarks/scale.py plan --paths 10000000
    python benchmarks/scale.py pool --images 96 --rounds 3   # one and two processes, in turns
    python benchmarks/scale.py ray --images 1000 --rounds 3  # Ray against the local pool, in turns

Each part is written into `benchmarks/results/scale.json`; the others stay as they are. On a busy
machine compare the ratios of a round, and the processor time of the planner.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from cyclopts import App
from PIL import Image

from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine

app = App()
RESULTS = Path(__file__).parent / "results"
SIDE = 256  # pixels
PROPOSALS = 50
Way: TypeAlias = tuple[Literal["local", "ray"], int]
"""Who shares the images out, and among how many processes."""
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import scale; scale.plan_once(sys.argv[2])"


@app.command
def plan(*, paths: int = 10_000_000, results: Path = RESULTS) -> None:
    """List so many addresses of a text file into a plan, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        with open(listed, "w", encoding="utf-8") as file:
            for i in range(paths):
                file.write(f"s3://photos/2026/{i // 10_000:05d}/image-{i:09d}.jpg\n")
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(listed)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        found["list_bytes"] = listed.stat().st_size
    keep("plan", found, results)


def plan_once(listed: str) -> None:
    """Write a plan and print what it took."""
    from diffinst.scale.inputs import Inputs
    from diffinst.scale.place import place
    from diffinst.scale.plan import Plan, usual_shard_size, write_plan

    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    where = place(Path(listed).parent / "out")
    planned = write_plan(where, Inputs.of(listed))
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    most = peak()
    begin = time.process_time()
    opened = Plan(where, usual_shard_size(planned.images))
    last = opened.shard(opened.shards - 1)
    print(
        json.dumps(
            {
                "paths": planned.images,
                **took,
                "peak_mb": most,
                "before_mb": before,
                "file_mb": (Path(listed).parent / "out" / "plan.parquet").stat().st_size / 1e6,
                "shards": opened.shards,
                "one_shard_cpu_s": time.process_time() - begin,
                "last": last[-1].path,
            }
        )
    )


def peak() -> float:
    """Most main memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@app.command
def pool(*, images: int = 96, rounds: int = 3, results: Path = RESULTS) -> None:
    """The same images by one process and by two, in turns."""
    ways: dict[str, Way] = {"one": ("local", 1), "two": ("local", 2)}
    found = in_turns(ways, images, rounds, SIDE, PROPOSALS)
    found["two_against_one"] = ratio(found["seconds"]["one"], found["seconds"]["two"])
    keep("pool", found, results)


@app.command
def ray(
    *,
    images: int = 1000,
    rounds: int = 3,
    side: int = 64,
    proposals: int = 20,
    results: Path = RESULTS,
) -> None:
    """The same images by two actors of Ray and by two processes, in turns.

    Small images and few proposals: what Ray costs stands out, and larger work hides it.
    """
    ways: dict[str, Way] = {"local": ("local", 2), "ray": ("ray", 2)}
    found = in_turns(ways, images, rounds, side, proposals)
    found["ray_against_local"] = ratio(found["seconds"]["ray"], found["seconds"]["local"])
    found["with_its_start"] = ratio(found["whole"]["ray"], found["whole"]["local"])
    del found["processor_seconds"]  # what Ray starts is not ours to wait for
    keep("ray", found, results)


def in_turns(
    ways: dict[str, Way], images: int, rounds: int, side: int, proposals: int
) -> dict[str, Any]:
    """Predict the same images each way, again and again; what each round took.

    `seconds` are those of predicting, `whole` with the start of all that is needed.
    """
    from diffinst.scale import predict_dataset

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    whole: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        random = np.random.default_rng(0)
        for i in range(images):
            small = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((side, side)).save(source / f"{i:06d}.jpg")
        for turn in range(rounds):
            for name, (engine, workers) in ways.items():
                begin, cpu = time.perf_counter(), processor_time()
                done = predict_dataset(
                    source,
                    Path(folder) / f"{name}-{turn}",
                    engine=engine,
                    workers=workers,
                    device="cpu",
                    proposals=proposals,
                )
                seconds[name].append(done.seconds)
                whole[name].append(time.perf_counter() - begin)
                processor[name].append(processor_time() - cpu)
                took = f"{seconds[name][-1]:.1f} s, {whole[name][-1]:.1f} s in all"
                print(turn, name, took, flush=True)
    about = {"images": images, "side": side, "proposals": proposals}
    return {**about, "seconds": seconds, "whole": whole, "processor_seconds": processor}


def processor_time() -> float:
    """Seconds of processors so far, of this process and of those that it has waited for."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def keep(part: str, found: dict[str, Any], results: Path) -> None:
    """Put a part into the results' file."""
    file = results / "scale.json"
    content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    content["machine"] = machine("cpu") | {"load": os.getloadavg()[0]}
    content[part] = found
    write_json(file, content)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    app()
