"""An exported file as a function: loaded by the runtime that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.export.about import ABOUT, FILES, About, read_about


class Runtime(Protocol):
    """A loaded file: the inputs by name to the outputs in order."""

    def __call__(self, **inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run it."""
        ...


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
            found = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return [value.numpy() for value in found.values()]

    return run


def _onnx_runtime(file: Path) -> Runtime:
    onnxruntime = required("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(**inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = session.run(None, inputs)
        return found

    return run


def _openvino_runtime(file: Path, about: About) -> Runtime:
    openvino = required("openvino", "openvino")
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(file, "CPU", settings)

    def run(**inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = compiled(inputs)
        return [np.array(found[name]) for name in about.outputs]

    return run


def required(package: str, format_: str) -> Any:  # noqa: ANN401 (a module without types)
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
