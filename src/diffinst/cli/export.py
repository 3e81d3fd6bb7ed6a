"""`diffinst export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.ending import writing_into
from diffinst.cli.options import Count, height_and_width
from diffinst.cli.terminal import say

CALIBRATION = 64  # images; more change the ranges little


def export(
    model: str,
    /,
    *,
    to: Literal["torch-export", "onnx", "openvino"],
    out: Path,
    size: str,
    steps: Count | None = None,
    proposals: Count | None = None,
    postprocess: bool = True,
    int8: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    check: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    limit: Count = 8,
) -> None:
    """Write a model for another runtime and compare it with the original.

    Example: diffinst export nano-nuclei --to onnx --size 512x512 --out models/onnx

    Size, steps and proposals are fixed in the file; the noise is an input of it. OUT gets the model
    and export.json, which says what goes in and what comes out.

    Parameters
    ----------
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    to
        torch-export (.pt2), onnx, or openvino.
    out
        Folder to write.
    size
        HEIGHTxWIDTH of the images it will get.
    steps
        Denoising steps; default: the model's.
    proposals
        Boxes to start from; default: the model's.
    postprocess
        End with suppression and masks; otherwise candidates, their filters and F_mask come out.
    int8
        Images or folders like those to come, at most 64 are used: OpenVINO models then compute in
        eight-bit integers, with the ranges seen on them.
    check
        Images or folders to compare on.
    limit
        Compare on this number at most.
    """
    from diffinst.export.files import export as write
    from diffinst.export.parity import compare
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.images import list_images

    sides = height_and_width(size)
    loaded = DiffusionInst.from_pretrained(model)
    with writing_into(out):
        write(
            loaded,
            out,
            to,
            sides,
            steps=steps,
            proposals=proposals,
            postprocess=postprocess,
            calibration=list_images(int8)[:CALIBRATION] if int8 else (),
        )
    say(f"written: {out}")
    if not check:
        say("not compared with the original: give images with --check")
        return
    say(str(compare(loaded, out, list_images(check)[:limit])))
