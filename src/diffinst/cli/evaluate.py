"""`diffinst eval`."""

from __future__ import annotations

from pathlib import Path

from diffinst.cli.options import usable_device
from diffinst.cli.terminal import say


def evaluate(
    *,
    data: Path,
    model: str,
    split: str = "val",
    steps: int | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Mask and box AP (COCO) of a model on an annotated split.

    Parameters
    ----------
    data
        COCO-format folder.
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    split
        Which annotations.
    steps
        Denoising steps.
    proposals
        Boxes to start from.
    max_detections
        Counted per picture; 100 in COCO, more for crowded pictures.
    seed
        Of the starting noise.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one.
    out
        Folder for metrics.json and results.json.
    """
    from diffinst.data.load import load_split
    from diffinst.evaluation.evaluator import evaluate as run
    from diffinst.inference.batch import progress_bar
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.atomic import write_json

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    annotated = load_split(data, split)
    with progress_bar("evaluating") as advance:
        report = run(
            loaded,
            annotated,
            steps=steps,
            proposals=proposals,
            max_detections=max_detections,
            seed=seed,
            progress=advance,
        )
    for name, value in report.as_dict().items():
        print(f"{name:<20} " + ("undefined" if value is None else f"{value:.4f}"))
    for name, value in report.mask.per_class.items():
        print(f"AP {name:<17} {value:.4f}")
    if out is not None:
        write_json(out / "metrics.json", report.as_dict())
        write_json(out / "results.json", report.results)
        say(f"written: {out / 'metrics.json'}, {out / 'results.json'}")
