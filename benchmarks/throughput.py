"""How fast is a folder of images predicted, against one image at a time?

    python benchmarks/throughput.py --images 200 --size 512 --out benchmarks/results/throughput

Both sides write the same files (overlays, label maps, COCO results) with the shipped weights, in
turns, round by round: `predict_folder`, which reads ahead, predicts in batches and saves behind,
and a loop of `predict` and `save`. The ratio of images per second is taken within a round. Where
the time goes is measured apart: reading alone, the network alone, saving alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

from diffinst import DiffusionInst
from diffinst.inference.folder import predict_folder
from diffinst.io.atomic import write_json, write_text
from diffinst.io.images import read_image
from diffinst.kernels.machine import machine
from diffinst.kernels.memory import keep_freed_memory
from diffinst.measure.benchmark import noise_image

PROPOSALS = 100


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def one_at_a_time(model: DiffusionInst, files: list[Path], out: Path) -> None:
    results = []
    for i, file in enumerate(files, start=1):
        found = model.predict(file, proposals=PROPOSALS)
        found.save(out / "overlays" / f"{file.stem}.png")
        found.save_masks(out / "masks" / f"{file.stem}.png")
        results += found.to_coco(i)
    write_json(out / "results.json", results)


def parts(model: DiffusionInst, files: list[Path], out: Path) -> dict[str, float]:
    """Seconds per image of each part alone, one thread of ours."""
    images = [read_image(file) for file in files]
    found = [model.predict(image, proposals=PROPOSALS) for image in images]

    def save() -> None:
        for i, result in enumerate(found):
            result.save(out / f"{i}.png")
            result.save_masks(out / f"{i}-mask.png")
            result.to_coco(i)

    alone = {
        "reading": seconds(lambda: [read_image(file) for file in files]),
        "network and masks": seconds(
            lambda: [model.predict(image, proposals=PROPOSALS) for image in images]
        ),
        "network in batches": seconds(
            lambda: list(model.predict(iter(images), proposals=PROPOSALS))
        ),
        "saving": seconds(save),
    }
    return {name: value / len(files) for name, value in alone.items()}


def main() -> None:
    """Measure, print a table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="a folder of images in place of made ones")
    parser.add_argument("--out", type=Path, help="path without suffix, for .json and .md")
    arguments = parser.parse_args()
    keep_freed_memory()
    model = DiffusionInst.from_pretrained("nano-nuclei", device=arguments.device).optimize("fp32")
    with tempfile.TemporaryDirectory(prefix="diffinst-throughput-") as folder:
        root = Path(folder)
        given = sorted(arguments.data.iterdir()) if arguments.data else [None] * arguments.images
        (root / "in").mkdir()
        for i, source in enumerate(given[: arguments.images]):
            pixels = noise_image((arguments.size, arguments.size), i)
            if source is not None:
                pixels = read_image(source)
            Image.fromarray(pixels).save(root / "in" / f"{i:04}.png")
        files = sorted((root / "in").iterdir())
        model.predict(files[0], proposals=PROPOSALS)  # warms up
        rounds = []
        for i in range(arguments.rounds):
            alone = seconds(partial(one_at_a_time, model, files, root / f"a{i}"))
            folder_run = partial(predict_folder, model, files, proposals=PROPOSALS)
            together = seconds(partial(folder_run, root / f"b{i}"))
            rounds.append({"one at a time": alone, "folder": together, "ratio": alone / together})
            print(f"round {i + 1}: {alone:.1f} s one at a time, {together:.1f} s as a folder")
        apart = parts(model, files[:50], root / "parts")
    ratios = [one["ratio"] for one in rounds]
    content = {
        "machine": machine(arguments.device),
        "images": len(files),
        "size": arguments.size,
        "proposals": PROPOSALS,
        "rounds": rounds,
        "ratio": statistics.median(ratios),
        "images per second": len(files) / statistics.median(one["folder"] for one in rounds),
        "seconds per image, each alone": apart,
    }
    slow = statistics.median(one["one at a time"] for one in rounds)
    lines = [
        f"{len(files)} images of {arguments.size} px, {PROPOSALS} proposals, one step.",
        "",
        "| | images/s | ratio | range |",
        "|---|---|---|---|",
        f"| one at a time | {len(files) / slow:.2f} | 1.00 | |",
        f"| as a folder | {content['images per second']:.2f} | {content['ratio']:.2f} | "
        f"{min(ratios):.2f}-{max(ratios):.2f} |",
        "",
        "| part, alone | ms an image |",
        "|---|---|",
        *(f"| {name} | {1000 * value:.0f} |" for name, value in apart.items()),
    ]
    print("\n".join(lines))
    if arguments.out is not None:
        write_json(arguments.out.with_suffix(".json"), content)
        write_text(arguments.out.with_suffix(".md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
