"""A model as a file for other runtimes: torch.export, ONNX, OpenVINO."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffinst.acceleration.optimize import optimized
from diffinst.config import ConfigError
from diffinst.export.about import ABOUT, FILES, About, Format
from diffinst.export.runtimes import required
from diffinst.export.unrolled import (
    OUTPUTS,
    FixedModel,
    exported_inputs,
    fitted,
    noise_inputs,
)
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import ImageSource
from diffinst.io.one_line import first_line

NOISE = "noise.npz"
OPSET = 18


def export(
    model: DiffusionInst,
    out: str | Path,
    to: Format,
    size: tuple[int, int],
    *,
    steps: int | None = None,
    proposals: int | None = None,
    postprocess: bool = True,
    calibration: Sequence[ImageSource] = (),
) -> Path:
    """Write a model folder for another runtime.

    Args:
        model: On the CPU, not optimized.
        out: Folder; gets model.pt2, model.onnx, or model.xml and model.bin, with export.json
            (see `About`) and noise.npz (all inputs but the image, as `predict` draws them).
        to: Which runtime.
        size: (height, width) of the images; callers resize to it.
        steps: Denoising steps; default: the model's.
        proposals: Boxes to start from; default: the model's.
        postprocess: End with suppression and masks.
        calibration: Images like those to come (OpenVINO only): convolutions and matrix products
            are then done in eight-bit integers with the ranges seen on them.

    Raises:
        ConfigError: A value out of range.
        ImageReadError: A calibration image cannot be read; names it.
        ValueError: No such format, a size of zero, a package that is missing, a backbone that
            cannot be traced, or eight-bit integers in another format than OpenVINO's.
    """
    if to not in FILES:
        raise ValueError(f"--to {to}: there are {', '.join(FILES)}")
    if min(size) < 1:
        raise ValueError(f"size {size}: height and width are at least 1")
    if calibration and to != "openvino":
        raise ValueError(f"--int8 is for openvino; {to} gets float32 models")
    asked = {"steps": steps, "proposals": proposals}
    config = model.config.updated(sampler={k: v for k, v in asked.items() if v is not None})
    fixed = FixedModel(
        optimized(model.network, "fp32"),
        config,
        size,
        postprocess=postprocess,
        plain=to == "torch-export",
    ).eval()
    grey = np.full((3, *size), 127, np.uint8)
    inputs = {name: torch.from_numpy(v) for name, v in exported_inputs(grey, config).items()}
    about = About(
        to,
        size,
        config.sampler.steps,
        config.sampler.proposals,
        postprocess,
        {name: tuple(value.shape) for name, value in inputs.items()},
        OUTPUTS[postprocess],
        config.model.names,
        bool(calibration),
        config.postprocess.threshold,
    )
    if config.sampler.early_stop is not None and config.sampler.steps > 1:
        raise ConfigError("sampler.early_stop cannot be exported; set it to null in config.json")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        _write(fixed, inputs, to, Path(folder), calibration)
        for name in FILES[to]:
            shutil.move(Path(folder) / name, out / name)
    with atomic_path(out / NOISE) as temporary:
        np.savez(temporary, allow_pickle=False, **noise_inputs(config))
    write_json(out / ABOUT, asdict(about))
    return out


def _write(
    fixed: FixedModel,
    inputs: dict[str, Tensor],
    to: Format,
    folder: Path,
    calibration: Sequence[ImageSource],
) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(fixed, (), inputs, strict=False)
        except Exception as error:  # of the tracer, of many kinds
            first = first_line(error)
            raise ValueError(
                f"backbone {fixed.network.config.backbone.name} cannot be exported ({first})"
            ) from error
        if to == "torch-export":
            torch.export.save(program, folder / "model.pt2")
            return
        required("onnxscript", to)
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=tuple(inputs),
            output_names=OUTPUTS[fixed.postprocess],
            opset_version=OPSET,
        )
        assert onnx is not None
        onnx.save(folder / "model.onnx")
        if to == "openvino":
            openvino = required("openvino", to)
            converted = openvino.convert_model(folder / "model.onnx")
            if calibration:
                converted = _quantized(converted, fixed, calibration)
            _name(converted, inputs, OUTPUTS[fixed.postprocess])
            openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)


def _name(converted: Any, inputs: Iterable[str], outputs: Iterable[str]) -> None:  # noqa: ANN401
    """Name inputs and outputs of an OpenVINO model, and nothing else.

    Inner values come named from ONNX; where the runtime merges one with an output, it would answer
    to the inner name first.
    """
    for operation in converted.get_ordered_ops():
        for port in operation.outputs():
            port.get_tensor().set_names(set())
    ports = [*converted.inputs, *converted.outputs]
    for port, name in zip(ports, [*inputs, *outputs], strict=True):
        port.get_tensor().set_names({name})


def _quantized(converted: Any, fixed: FixedModel, images: Sequence[ImageSource]) -> Any:  # noqa: ANN401 (OpenVINO's model has no types)
    """An OpenVINO model with eight-bit convolutions and matrix products.

    As a transformer: without it NNCF takes box maths and norms into eight bits, too, which cost a
    point of AP in a trial.
    """
    nncf = required("nncf", "int8")
    nncf.set_log_level(logging.ERROR)
    items = [exported_inputs(fitted(image, fixed.size), fixed.config) for image in images]
    seen = nncf.Dataset(items)
    return nncf.quantize(
        converted,
        seen,
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
    )
