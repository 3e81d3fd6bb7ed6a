"""`diffinst predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import Compiled, Device, Precise, Read, usable_device
from diffinst.cli.scale import Many, predict_many, split
from diffinst.cli.slide import Tiling, predict_slide
from diffinst.cli.terminal import progress_bar, say, say_some
from diffinst.config import OptionFields, Reading

Asked = Annotated[OptionFields, Parameter(name="*")]


def predict(
    images: Annotated[list[str], Parameter(consume_multiple=True)],  # a Path of "" would be "."
    /,
    *,
    model: str = "nano-nuclei",
    out: Path = Path("runs/predict"),
    options: Asked = {},  # noqa: B006 (never written to)
    read: Read = {},  # noqa: B006 (never written to)
    labels: bool = True,
    scores: bool = True,
    formats: Annotated[list[str], Parameter(name="--as", negative=())] = [],  # noqa: B006
    device: Device = None,
    precision: Precise = "fp32",
    compile_network: Compiled = False,
    tiles: Annotated[bool, Parameter(negative=())] = False,
    tiling: Annotated[Tiling, Parameter(name="*")] = {},  # noqa: B006 (never written to)
    track: Annotated[bool, Parameter(negative=())] = False,
    layout: tuple[Literal["coco-video", "ctc"], ...] = (),
    many: Many = Many(),  # noqa: B008 (frozen)
) -> None:
    """Segment images or folders of images, or follow the objects of a video.

    Example: diffinst predict my_images/ --model runs/mine/best --steps 4

    A slide: diffinst predict slide.svs --tiles --out runs/slide

    A video: diffinst predict movie.mp4 --track --out runs/movie

    Millions: diffinst predict images/ --shards --out runs/many

    Writes OUT/overlays/NAME.png, OUT/masks/NAME.png (16-bit label maps) and OUT/results.json (COCO
    format; image ids and class ids are explained in OUT/index.json). What is not said of steps,
    proposals and so on is as the model has it.

    Parameters
    ----------
    images
        Files or folders (searched with their subfolders).
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    out
        Where to write.
    labels
        Write classes into the overlays, where they fit.
    scores
        Write scores into the overlays, where they fit.
    formats
        Files for other programs that OUT gets, too, several after a comma or by several flags:
        coco, coco-masks (without boxes), yolo, labelme, cvat, imagej, geojson, labels (TIFF), or
        tables of measurements: csv, parquet. docs/other-tools.md says what each holds.
    tiles
        One image of any size, tile by tile; writes other files, see docs/slides.md, and goes on
        where it was stopped.
    track
        What is given is one video: a video file, a folder of frames, a TIFF of several pages, or
        its frames as files. Writes OUT/overlay.mp4, OUT/tracks.txt (MOT) and OUT/results.json with
        track_id; a frame takes 1 step of 100 new boxes where nothing is said.
    layout
        With --track, more forms of the result: coco-video (OUT/video_results.json), ctc (label maps
        and OUT/01_RES/res_track.txt, as the Cell Tracking Challenge has them).
    many
        How millions of images are shared out.
    """
    ways = [name for name, on in (("tiles", tiles), ("track", track), ("shards", many.asked)) if on]
    if len(ways) > 1:
        raise ValueError(
            f"--{ways[0]} and --{ways[1]}: one of them only, they read their input apart"
        )
    if formats and (tiles or track):
        raise ValueError(f"--as: files of other programs are not written with --{ways[0]}; omit it")
    if layout and not track:
        raise ValueError(f"--layout {layout[0]}: is for videos; add --track")
    reading = Reading.of(**read)
    if tiling and not tiles:
        flag = next(iter(tiling)).replace("_", "-")
        raise ValueError(f"--{flag} is for images that are predicted in tiles; add --tiles")
    if many.asked:
        if compile_network:
            raise ValueError(
                "--compile: not with --shards, whose processes would each take minutes"
            )
        predict_many(
            images,
            out,
            many,
            split(formats),
            model=model,
            options=options,
            reading=reading,
            device=device,
            precision=precision,
        )
        return
    from diffinst.inference.folder import predict_folder
    from diffinst.inference.predictor import DiffusionInst

    loaded = DiffusionInst.from_pretrained(model, device=usable_device(device))
    loaded = loaded.optimize(precision, compile_network=compile_network)
    if tiles:
        predict_slide(loaded, images, out, reading, tiling, options)
        return
    if track:
        from diffinst.cli.track import track as track_video

        notes = track_video(
            loaded, images, out, layouts=layout, reading=reading, labels=labels, options=options
        )
        return say_some("notes:", notes)
    with progress_bar("segmenting") as advance:
        done = predict_folder(
            loaded,
            images,
            out,
            reading=reading,
            progress=advance,
            labels=labels,
            scores=scores,
            formats=split(formats),
            **options,
        )
    each = f", {done.seconds / done.images:.2f} s an image" if done.images else ""
    say(
        f"{done.instances} instances on {done.images} images{each}\n"
        f"overlays   {out / 'overlays'}\nmasks      {out / 'masks'}\n"
        f"results    {out / 'results.json'}"
    )
    for name, path in done.others.items():
        say(f"{name:<10} {path}")
    say_some("notes:", done.notes)
    if done.failed:
        say_some(f"{len(done.failed)} images could not be read:", done.failed)
        sys.exit(1)
