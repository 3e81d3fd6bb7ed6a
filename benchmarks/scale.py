"""What do shards cost? The planner at millions of paths, two processes against one, Ray's price.

    python benchmarks/scale.py plan --paths 10000000
    python benchmarks/scale.py rate --images 100   # one process beside the network alone
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
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); import scale; "
    "getattr(scale, sys.argv[2])(*sys.argv[3:])"
)


@app.command
def plan(*, paths: int = 10_000_000, results: Path = RESULTS) -> None:
    """List so many addresses of a text file into a plan, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        with open(listed, "w", encoding="utf-8") as file:
            for i in range(paths):
                file.write(f"s3://photos/2026/{i // 10_000:05d}/image-{i:09d}.jpg\n")
        found = in_a_process("plan_once", str(listed))
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


def in_a_process(name: str, *given: str) -> dict[str, Any]:
    """What a function of this file prints as JSON, called with texts in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), name, *given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@app.command
def rate(
    *,
    images: int = 100,
    rounds: int = 3,
    side: int = 512,
    proposals: int = 100,
    results: Path = RESULTS,
) -> None:
    """One process of the pool against the network alone, on images that are in memory, in turns.

    `reading` and `writing` are what the process does besides; its start is not in it.
    """
    from diffinst.scale import predict_dataset

    pool_seconds, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = images_of(Path(folder) / "in", images, side)
        for turn in range(rounds):
            alone.append(in_a_process("rate_once", str(source), str(proposals)))
            done = predict_dataset(
                source,
                Path(folder) / f"pool-{turn}",
                workers=1,
                device="cpu",
                proposals=proposals,
            )
            pool_seconds.append(done.seconds / images)
            print(turn, alone[-1], pool_seconds[-1], flush=True)
    found: dict[str, Any] = {"images": images, "side": side, "proposals": proposals}
    for name in ("reading", "network", "writing"):
        found[name] = [one[name] for one in alone]
    found["pool"] = pool_seconds
    found["rate_of_the_network"] = ratio(found["network"], pool_seconds)
    keep("rate", found, results)


def rate_once(source: str, proposals: str) -> None:
    """Print seconds an image of reading, of the network with one thread, of rows and writing."""
    import torch

    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.images import read_image
    from diffinst.kernels.memory import keep_freed_memory
    from diffinst.scale.messages import Item
    from diffinst.scale.place import place
    from diffinst.scale.rows import write_part
    from diffinst.scale.worker import row_of

    keep_freed_memory()
    torch.set_num_threads(1)  # as in the pool
    model = DiffusionInst.from_pretrained("nano-nuclei", "cpu").optimize("fp32")
    files = sorted(Path(source).iterdir())
    begin = time.perf_counter()
    pixels = [read_image(file) for file in files]
    read = time.perf_counter()
    model.predict(pixels[0], proposals=int(proposals))
    warm = time.perf_counter()
    found = [model.predict(one, proposals=int(proposals)) for one in pixels]
    predicted = time.perf_counter()
    rows = [row_of(Item("", f.name, 0), r) for f, r in zip(files, found, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        write_part(place(folder), 0, rows, "")
    written = time.perf_counter()
    seconds = {"reading": read - begin, "network": predicted - warm, "writing": written - predicted}
    print(json.dumps({name: value / len(files) for name, value in seconds.items()}))


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
        source = images_of(Path(folder) / "in", images, side)
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


def images_of(folder: Path, count: int, side: int) -> Path:
    """A folder of JPEGs of soft noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        small = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side)).save(folder / f"{i:06d}.jpg")
    return folder


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
    content[part] = {"machine": machine("cpu") | {"load": os.getloadavg()[0]}, **found}
    write_json(file, content)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    app()
