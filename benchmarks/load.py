"""How many requests does `diffinst serve` answer, how soon, and is each client given its own?

    python benchmarks/load.py --out benchmarks/results/load.json  # small: --requests 40 --each 16

Starts a server of the shipped weights as its users do, on the loopback, and asks it from 1, 4 and
16 clients at a time, each with a session, an image and seeds of its own. Every answer is compared
with what the model gives here; one that is another is counted as wrong. A client that is told to
come again later (429) does so; its time goes on. The server has the queue that its users have, but
no limit of requests a second, which would be all that is measured. Memory is the server's over
`--requests` requests.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import httpx
import numpy as np
import torch
import uvicorn
from PIL import Image

from diffinst import DiffusionInst
from diffinst.config import OptionFields
from diffinst.io.atomic import write_json
from diffinst.io.images import Pixels
from diffinst.kernels.machine import machine
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits
from diffinst.serve.page_files import page_files

OPTIONS: OptionFields = {"steps": 1, "proposals": 100, "threshold": 0.3}
SIDE = 128  # pixels of a client's image
SEEDS = (0, 1, 2)
CLIENTS = (1, 4, 16)
PATIENCE = 600.0  # seconds until an answer counts as lost


@dataclass(frozen=True)
class Client:
    """An image and what the model finds on it, by seed."""

    png: bytes
    wanted: dict[int, list[object]]


@dataclass(frozen=True)
class Reply:
    """One request: how long until its answer, how often it was put off, whether it was right."""

    seconds: float
    put_off: int
    right: bool


def views(content: bytes, count: int) -> Iterator[Pixels]:
    """Parts of an image, each another one."""
    whole = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    height, width = whole.shape[0] - SIDE, whole.shape[1] - SIDE
    for i in range(count):
        y, x = (37 * i) % (height + 1), (53 * i) % (width + 1)
        yield np.ascontiguousarray(whole[y : y + SIDE, x : x + SIDE])


def made(model: DiffusionInst, count: int) -> list[Client]:
    """Clients, no two of whom have the same answer coming."""
    clients = []
    for pixels in views(page_files()["samples/stained.png"].content, count):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        wanted: dict[int, list[object]] = {}
        for seed in SEEDS:
            options: OptionFields = {**OPTIONS, "seed": seed}
            wanted[seed] = [*model.predict(pixels, **options).mask_crops.to_rle()]
        clients.append(Client(png.getvalue(), wanted))
    answers = [str(one.wanted[seed]) for one in clients for seed in SEEDS]
    assert len(set(answers)) == len(answers), "two have the same answer: a mix-up would not be seen"
    return clients


def ask(address: str, client: Client, requests: int) -> list[Reply]:
    """What one client gets, request after request."""
    with httpx.Client(base_url=address, timeout=PATIENCE) as http:
        image = _patiently(lambda: http.post("/images", content=client.png))[0].json()["id"]
        replies = []
        for seed in islice(cycle(SEEDS), requests):
            asked = {"image": image, "seed": seed, **OPTIONS}
            since = time.perf_counter()
            try:
                answer, put_off = _patiently(lambda a=asked: http.post("/predict", json=a))  # type: ignore[misc]
            except httpx.HTTPError as error:  # it counts as lost
                print(f"no answer: {error!r}", file=sys.stderr)
                continue
            took = time.perf_counter() - since
            masks = [one["rle"] for one in answer.json()["objects"]]
            replies.append(Reply(took, put_off, masks == client.wanted[seed]))
        _patiently(lambda: http.delete(f"/images/{image}"))
    return replies


def _patiently(request: Callable[[], httpx.Response]) -> tuple[httpx.Response, int]:
    for put_off in range(10_000):
        answer = request()
        if answer.status_code != 429:
            answer.raise_for_status()
            return answer, put_off
        time.sleep(float(answer.headers["Retry-After"]))
    raise TimeoutError("the server put a request off 10,000 times")


def together(address: str, clients: Sequence[Client], each: int) -> dict[str, float]:
    """All clients at a time, `each` requests of every one."""
    since = time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        replies = [r for one in pool.map(lambda c: ask(address, c, each), clients) for r in one]
    return summary(len(clients), each, replies, time.perf_counter() - since)


def summary(clients: int, each: int, replies: Sequence[Reply], seconds: float) -> dict[str, float]:
    """Numbers of one round."""
    times = sorted(one.seconds for one in replies)
    return {
        "clients": clients,
        "requests": len(replies),
        "requests a second": len(replies) / seconds,
        "median seconds": statistics.median(times),
        "p99 seconds": float(np.percentile(times, 99)),
        "put off": sum(one.put_off for one in replies),
        "wrong": sum(not one.right for one in replies),
        "lost": clients * each - len(replies),
    }


@contextmanager
def served(device: str) -> Iterator[tuple[str, int]]:
    """A server with its address and process id."""
    with tempfile.TemporaryDirectory(prefix="diffinst-load-") as folder:
        command = [sys.executable, __file__, "--serve", folder, "--device", device]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        try:
            yield server.stderr.readline().split()[-1], server.pid
        finally:
            server.terminate()
            server.communicate(timeout=60)


def megabytes(process: int) -> float | None:
    """Of memory that a process holds; None where the system does not say."""
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        return None
    (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def serve(folder: Path, device: str) -> None:
    """The server; says its address on stderr, and ends with SIGTERM."""
    app = create_app(
        {"nano-nuclei": DiffusionInst.from_pretrained("nano-nuclei", device=device)},
        folder,
        limits=Limits(rate=1e6, burst=10**6),
    )
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


def main() -> None:
    """Measure, print, write JSON; fails where an answer was wrong or lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="over which memory is measured")
    parser.add_argument("--each", type=int, default=48, help="requests of each round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="", help="of the machine: what else it was doing")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return serve(arguments.serve, arguments.device)
    model = DiffusionInst.from_pretrained("nano-nuclei", device=arguments.device)
    clients = made(model, max(CLIENTS))
    rounds, memory = [], []
    with served(arguments.device) as (address, process):
        together(address, clients[:1], 2)  # warms up
        for count in CLIENTS:
            rounds.append(together(address, clients[:count], max(1, arguments.each // count)))
            print(", ".join(f"{name} {value:.3g}" for name, value in rounds[-1].items()))
        for part in range(10):
            memory.append(megabytes(process))
            row = together(address, clients[:4], max(1, arguments.requests // 40))
            rounds.append({**row, "of the memory test": part + 1})
        memory.append(megabytes(process))
    print("MB of memory, from start to end: ", *(f"{m:.0f}" for m in memory if m is not None))
    wrong, lost = (sum(row[name] for row in rounds) for name in ("wrong", "lost"))
    content = {
        "machine": machine(torch.device(arguments.device)),
        "note": arguments.note,
        "load average": os.getloadavg(),
        "options": OPTIONS,
        "side": SIDE,
        "rounds": rounds[: len(CLIENTS)],
        "memory": {
            "requests": sum(int(row["requests"]) for row in rounds[len(CLIENTS) :]),
            "megabytes": memory,
        },
        "wrong": wrong,
        "lost": lost,
    }
    if arguments.out is not None:
        write_json(arguments.out, content)
    if wrong or lost:
        sys.exit(f"{wrong:.0f} answers were wrong and {lost:.0f} were lost")


if __name__ == "__main__":
    main()
