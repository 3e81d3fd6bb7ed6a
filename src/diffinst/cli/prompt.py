"""`diffinst prompt`."""

from __future__ import annotations

import json
from pathlib import Path

from diffinst.cli.options import Device, usable_device
from diffinst.cli.terminal import say


def prompt(
    image: Path,
    /,
    *,
    boxes: str | None = None,
    points: str | None = None,
    exclude: str | None = None,
    model: str = "nano-nuclei",
    out: Path = Path("runs/prompt"),
    device: Device = None,
) -> None:
    """The objects that boxes or clicks point at, one for each, in their order.

    Example: diffinst prompt cells.png --points "35,50 120,80"

    Writes OUT/overlay.png with the prompts in it, OUT/masks.png (16-bit label map: 1 is the best
    score) and OUT/results.json (COCO format; one entry for each prompt, boxes first; a score of 0:
    nothing was found there, and nothing is drawn).

    Parameters
    ----------
    image
        One image.
    boxes
        "x0,y0,x1,y1 x0,y0,x1,y1 ..." in pixels of the image, or a JSON file with a list of such
        lists. Where it begins with a minus: --boxes=-5,20,60,80.
    points
        "x,y x,y ...": a click on each object; "x,y+x,y": two clicks on one object; or a JSON file.
    exclude
        "x,y" or "x0,y0,x1,y1", several with spaces: what is not meant.
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        Where to write.
    """
    given = {
        "boxes": _numbers("--boxes", boxes),
        "points": _numbers("--points", points),
        "exclude": _numbers("--exclude", exclude),
    }
    if not given["boxes"] and not given["points"]:
        raise ValueError(
            'nothing is asked for; give --boxes "x0,y0,x1,y1 ..." or --points "x,y ..."'
        )
    from diffinst.inference.folder import refuse_file
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.atomic import atomic_path, write_json
    from diffinst.io.lock import alone_in
    from diffinst.results.render.prompts import with_prompts

    refuse_file(out)
    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    encoded = loaded.encode(image)
    clicks = [p if isinstance(p[0], list) else [p] for p in given["points"]]
    found = encoded.prompt(given["boxes"], clicks, given["exclude"])
    points_drawn = [point for group in clicks for point in group]
    with alone_in(out):
        real = found.above(1e-6)  # 0: nothing of its own
        canvas = with_prompts(real.plot(), given["boxes"], points_drawn, given["exclude"])
        with atomic_path(out / "overlay.png") as temporary:
            canvas.save(temporary, format="PNG")
        real.save_masks(out / "masks.png")
        write_json(out / "results.json", found.to_coco())
    say(
        f"{len(found)} prompts, {len(real)} objects\n"
        f"overlay    {out / 'overlay.png'}\nmasks      {out / 'masks.png'}\n"
        f"results    {out / 'results.json'}"
    )


def _numbers(flag: str, text: str | None) -> list[list]:  # type: ignore[type-arg]
    """Groups of numbers, from a line of text or a JSON file."""
    if text is None:
        return []
    if text.endswith(".json"):
        return _file(flag, Path(text))
    try:
        groups = [[_group(part) for part in word.split("+")] for word in text.split()]
    except ValueError:
        raise ValueError(
            f"{flag} {text}: give numbers such as 10,20,60,80 with spaces between boxes or points, "
            "or a .json file"
        ) from None
    return [group[0] if len(group) == 1 else group for group in groups]


def _group(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _file(flag: str, path: Path) -> list[list]:  # type: ignore[type-arg]
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{flag} {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{flag} {path}: is no JSON ({error})") from error
    if not isinstance(values, list) or not all(isinstance(v, list) and v for v in values):
        raise ValueError(f"{flag} {path}: give a list of lists of numbers, [[10, 20, 60, 80], ...]")
    return values
