"""A model as a file for other runtimes: torch.export, ONNX, OpenVINO."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.acceleration.optimize import optimized
from diffinst.config import ConfigError
from diffinst.export.unrolled import INPUTS, FixedModel, exported_inputs, fitted
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.io.images import ImageSource

Format = Literal["torch-export", "onnx", "openvino"]
FILES: dict[str, tuple[str, ...]] = {
    "torch-export": ("model.pt2",),
    "onnx": ("model.onnx",),
    "openvino": ("model.bin", "model.xml"),
}
ABOUT = "export.json"
OUTPUTS = {
    True: ("boxes", "scores", "labels", "masks"),
    False: ("boxes", "scores", "labels", "filters", "mask_features"),
}
OPSET = 18


@dataclass(frozen=True)
class About:
    """What an exported model takes and gives; saved beside it as JSON.

    Attributes:
        format: Its kind.
        size: (height, width) of its images.
        steps: Denoising steps.
        proposals: Boxes to start from.
        postprocess: Whether it ends with suppression and masks.
        inputs: Shape of each input, by name.
        outputs: Names of the outputs, in order.
        class_names: One per label.
        int8: Whether heavy operations are done in eight-bit integers.
    """

    format: Format
    size: tuple[int, int]
    steps: int
    proposals: int
    postprocess: bool
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    int8: bool = False


class Runtime(Protocol):
    """A loaded file: the inputs by name to the outputs in order."""

    def __call__(self, **inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run it."""
        ...


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
        out: Folder; gets model.pt2, model.onnx, or model.xml and model.bin, and export.json.
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
        optimized(model.network, "fp32"), config, size, postprocess=postprocess
    ).eval()
    grey = np.full((3, *size), 127, np.uint8)
    inputs = tuple(torch.from_numpy(value) for value in exported_inputs(grey, config).values())
    about = About(
        to,
        size,
        config.sampler.steps,
        config.sampler.proposals,
        postprocess,
        {name: tuple(value.shape) for name, value in zip(INPUTS, inputs, strict=True)},
        OUTPUTS[postprocess],
        config.model.names,
        bool(calibration),
    )
    if config.sampler.early_stop is not None and config.sampler.steps > 1:
        raise ConfigError("sampler.early_stop cannot be exported; set it to null in config.json")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        _write(fixed, inputs, to, Path(folder), calibration)
        for name in FILES[to]:
            shutil.move(Path(folder) / name, out / name)
    write_json(out / ABOUT, asdict(about))
    return out


def _write(
    fixed: FixedModel,
    inputs: tuple[Tensor, ...],
    to: Format,
    folder: Path,
    calibration: Sequence[ImageSource],
) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(fixed, inputs, strict=False)
        except Exception as error:  # of the tracer, of many kinds
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"backbone {fixed.network.config.backbone.name} cannot be exported ({first})"
            ) from error
        if to == "torch-export":
            torch.export.save(program, folder / "model.pt2")
            return
        _required("onnxscript", to)
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=INPUTS,
            output_names=OUTPUTS[fixed.postprocess],
            opset_version=OPSET,
        )
        assert onnx is not None
        onnx.save(folder / "model.onnx")
        if to == "openvino":
            openvino = _required("openvino", to)
            converted = openvino.convert_model(folder / "model.onnx")
            if calibration:
                converted = _quantized(converted, fixed, calibration)
            openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)


def _quantized(converted: Any, fixed: FixedModel, images: Sequence[ImageSource]) -> Any:  # noqa: ANN401 (OpenVINO's model has no types)
    """An OpenVINO model with eight-bit convolutions and matrix products.

    As a transformer: without it NNCF takes box maths and norms into eight bits, too, which cost a
    point of AP in a trial.
    """
    nncf = _required("nncf", "int8")
    nncf.set_log_level(logging.ERROR)
    wanted = [i.any_name for i in converted.inputs]
    items = [exported_inputs(fitted(image, fixed.size), fixed.config) for image in images]
    seen = nncf.Dataset([{name: item[name] for name in wanted} for item in items])
    return nncf.quantize(
        converted,
        seen,
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
    )


def read_about(folder: str | Path) -> About:
    """What an exported model takes and gives.

    Raises:
        ValueError: The folder holds no exported model.
    """
    file = Path(folder) / ABOUT
    try:
        values = json.loads(file.read_text("utf-8"))
        values["size"] = tuple(values["size"])
        values["inputs"] = {k: tuple(v) for k, v in values["inputs"].items()}
        values["outputs"] = tuple(values["outputs"])
        values["class_names"] = tuple(values["class_names"])
        return About(**values)
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file} is missing or damaged ({error}); write the folder with `diffinst export`"
        ) from error


def load(folder: str | Path) -> Runtime:
    """Load an exported model with the runtime it was made for.

    Raises:
        ValueError: The folder holds no exported model, or the runtime's package is missing.
    """
    about, folder = read_about(folder), Path(folder)
    match about.format:
        case _ if about.format not in FILES:
            raise ValueError(f"{folder / ABOUT}: format {about.format!r} is none of {list(FILES)}")
        case "torch-export":
            return _torch_runtime(folder / "model.pt2")
        case "onnx":
            return _onnx_runtime(folder / "model.onnx")
        case "openvino":
            return _openvino_runtime(folder / "model.xml", about)


def _torch_runtime(file: Path) -> Runtime:
    module = torch.export.load(file).module()

    def run(**inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(inputs[name]) for name in INPUTS))
        return [value.numpy() for value in found]

    return run


def _onnx_runtime(file: Path) -> Runtime:
    onnxruntime = _required("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    wanted = [i.name for i in session.get_inputs()]  # an input that nothing reads is omitted

    def run(**inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = session.run(None, {name: inputs[name] for name in wanted})
        return found

    return run


def _openvino_runtime(file: Path, about: About) -> Runtime:
    openvino = _required("openvino", "openvino")
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(file, "CPU", settings)
    wanted = [i.any_name for i in compiled.inputs]

    def run(**inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = compiled({name: inputs[name] for name in wanted})
        return [np.array(found[name]) for name in about.outputs]

    return run


def _required(package: str, format_: str) -> Any:  # noqa: ANN401 (a module without types)
    """An optional package.

    Raises:
        ValueError: It is missing; says how to get it.
    """
    try:
        return __import__(package)
    except ImportError as error:
        raise ValueError(
            f"{format_} needs the package {package}: pip install 'diffinst[export]'"
        ) from error
