"""`diffinst curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.ending import writing_into
from diffinst.cli.evaluate import exit_if_failed
from diffinst.cli.options import Count, Device, Precise, Processes, Seed, usable_device
from diffinst.cli.tables import print_curve
from diffinst.cli.terminal import progress_bar, say

Several = Parameter(consume_multiple=True, negative=())
STEPS: tuple[int | Literal["auto"], ...] = (1, 2, 4, 8)
PROPOSALS = (100, 300, 500)


def curve(
    data: Path,
    /,
    *,
    model: str,
    out: Path = Path("runs/curve"),
    split: str = "val",
    steps: Annotated[list[Count | Literal["auto"]] | None, Several] = None,
    proposals: Annotated[list[Count] | None, Several] = None,
    kind: Annotated[list[Literal["ddim", "search"]] | None, Several] = None,
    max_detections: Count | None = None,
    seed: Seed = 0,
    limit: Count | None = None,
    single_class: Annotated[bool, Parameter(negative=())] = False,
    processes: Processes = 1,
    device: Device = None,
    precision: Precise = "fp32",
) -> None:
    """AP over seconds: every setting of steps, proposals and sampler, and the best for each time.

    Example: diffinst curve DATA --model nano-nuclei --steps 1 2 4 --proposals 100 500

    Writes OUT/curve.json, curve.csv and curve.png. The front is what no other setting beats in as
    little time. The same command again goes on where it stopped. With the model's folder as OUT,
    predictions with --seconds choose by it.

    Parameters
    ----------
    data
        The dataset's folder.
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        Where to write.
    split
        Which annotations.
    steps
        Numbers of denoising steps, auto among them if asked for; default: 1 2 4 8.
    proposals
        Numbers of boxes to start from; default: 100 300 500.
    kind
        Samplers; default: the model's. One step is the same in both, and measured once.
    max_detections
        Kept and counted per image; default: the model's own, in LVIS 300. More for crowded ones.
    seed
        Of the starting noise.
    limit
        Use the first N images only.
    single_class
        Take all classes as one.
    processes
        How many share the images; each loads the model. For AP: times are then of all at once.
    """
    from diffinst.datasets.load import load_split
    from diffinst.evaluation.curve import curve_rows, write_curve
    from diffinst.evaluation.source import Source
    from diffinst.evaluation.sweep import sweep
    from diffinst.inference.folder import refuse_file

    refuse_file(out)
    place = usable_device(device)
    annotated = load_split(data, split, single_class=single_class)
    if not any(record.annotations for record in annotated.records[:limit]):
        raise ValueError(f"{annotated.annotation_file} has no annotations: nothing to measure")
    source = Source.of(model, place, precision, processes=processes)
    if processes == 1:
        source.model.predict(annotated.records[0].path)  # the first prediction takes longer
    with writing_into(out, "cells"), progress_bar("measuring") as advance:
        cells = sweep(
            source,
            annotated,
            out,
            steps=steps or STEPS,
            proposals=proposals or PROPOSALS,
            kinds=kind or (),
            max_detections=max_detections,
            seed=seed,
            single_class=single_class,
            limit=limit,
            processes=processes,
            device=device,
            progress=advance,
        )
        title = f"{source.name} on {annotated.image_dir.parent.name} {split}"
        notes = write_curve(cells, annotated, out, title=title, device=place)
    print_curve(curve_rows(cells))
    for note in notes:
        say(note)
    say(f"written: {out / 'curve.json'} and what lies beside it")
    exit_if_failed([message for cell in cells for message in cell.failed])
