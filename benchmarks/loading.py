"""Does data loading keep up with training? Images a second, decoded, augmented and rasterised.

    python benchmarks/loading.py --data DATA DATA  # folders like shared nuclei and coco_mini

Workers have one thread each, as in training, and nothing else runs. Beside it the images a second
that one training iteration takes on this machine, from the results of `speed.py`.
"""

from __future__ import annotations

import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.io.atomic import atomic_path, write_json
from diffinst.kernels.machine import machine
from diffinst.training.loader import train_loader

app = App()
RESULTS = Path(__file__).parent / "results"
BATCH = 2
PRESETS = ("r50-coco", "nano")
Folders = Annotated[tuple[Path, ...], Parameter(consume_multiple=True)]


@app.default
def loading(
    *,
    data: Folders,
    workers: tuple[int, ...] = (0, 1, 2),
    batches: int = 40,
    rounds: int = 3,
    results: Path = RESULTS,
) -> None:
    """Measure, print the table, write `loading.json` and `.md`.

    Args:
        data: COCO-format folders; train is read.
        workers: Numbers of worker processes; 0: the training process itself.
        batches: Of two images, after one that is not counted.
        rounds: How often; the median is printed.
        results: Folder of the files.
    """
    rows: list[dict[str, Any]] = []
    for folder in data:
        split = load_split(folder, "train")
        for preset in PRESETS:
            for count in workers:
                rates = [rate(split, preset, count, batches) for _ in range(rounds)]
                row = {"data": folder.name, "preset": preset, "workers": count, "rates": rates}
                print(row, flush=True)
                rows.append(row)
    content = {"machine": machine("cpu"), "rows": rows}
    write_json(results / "loading.json", content)
    text = table(rows, needed(results))
    with atomic_path(results / "loading.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


def rate(split: Split, preset: str, workers: int, batches: int) -> float:
    """Images a second of the training stream."""
    train: dict[str, object] = {"batch_size": BATCH, "iterations": batches + 1}
    train |= {"workers": workers, "scaling": "none", "milestones": ()}
    config = Config.from_preset(preset).updated(
        train=train, model={"num_classes": len(split.classes), "class_names": ()}
    )
    stream = iter(train_loader(split, config))
    next(stream)
    begin = time.perf_counter()
    seen = sum(len(batch) for batch in islice(stream, batches))
    return seen / (time.perf_counter() - begin)


def needed(results: Path) -> float | None:
    """Images a second that R50 learns from on this machine in bf16; None: not measured."""
    file = results / "speed-cpu.json"
    if not file.is_file():
        return None
    seconds = json.loads(file.read_text("utf-8"))["training"]["diffinst training bf16"]
    return BATCH / float(statistics.median(seconds))


def table(rows: list[dict[str, Any]], consumed: float | None) -> str:
    """Markdown, a line a measurement."""
    lines = ["| data | preset | workers | images a second | range |", "|" + "---|" * 5]
    for row in rows:
        rates = row["rates"]
        cells = [row["data"], row["preset"], str(row["workers"])]
        cells += [f"{statistics.median(rates):.1f}", f"{min(rates):.1f}-{max(rates):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if consumed is not None:
        lines.append(f"\nTraining R50 in bf16 takes {consumed:.2f} images a second here.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()
