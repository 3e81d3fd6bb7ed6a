"""Reads tensors from files of strangers: pickles too, but nothing in them is ever run."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from diffinst.io.one_line import first_line
from diffinst.weights.runs import CHECKPOINT, instead_of_checkpoint

PICKLES = (".pth", ".pt", ".bin", ".pkl")
READABLE = (*PICKLES, ".safetensors")
WRAPPERS = ("model", "state_dict")  # where training checkpoints keep the weights
OURS = "diffinst"  # in a training checkpoint of a run
PARALLEL_PREFIX = "module."  # DataParallel and moving averages put it in front of every key
HOLDS_CODE = "holds code: "
IMPORT = rf"(?:{HOLDS_CODE}|GLOBAL )(\S+)"  # how this reader and torch's name what they refuse


class ConvertError(ValueError):
    """Foreign weights that cannot be used: names the file, what is wrong with it and what to do."""


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, without wrappers such as `{"model": ...}`.

    Args:
        path: .pth, .pt or .bin (torch), .pkl (numpy arrays, as detectron2 writes) or .safetensors.

    Raises:
        ConvertError: Missing, truncated, with code inside, or without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ConvertError(f"{path} does not exist; give a {', '.join(READABLE)} file")
    suffix = path.suffix.lower()
    if suffix == CHECKPOINT.suffix:
        raise ConvertError(instead_of_checkpoint(path))
    if suffix not in READABLE:
        raise ConvertError(f"{path}: cannot read '{suffix}' files; allowed: {', '.join(READABLE)}")
    try:
        content = _content(path, suffix)
    except Exception as error:  # broken files make readers raise nearly anything
        code = re.search(IMPORT, str(error))
        if isinstance(error, pickle.UnpicklingError) and code:
            raise ConvertError(
                f"{path} contains code and not only tensors; nothing of it was run ({code[1]}). "
                "Ask its author for a .safetensors or a plain state dict"
            ) from error
        reason = first_line(error)
        raise ConvertError(
            f"{path} is no complete {suffix} file ({reason}); copy or download it again"
        ) from error
    if isinstance(content, dict) and OURS in content:
        raise ConvertError(instead_of_checkpoint(path))
    return flat_tensors(content, str(path))


def flat_tensors(content: object, source: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: no wrappers, no parallel prefixes, arrays as tensors.

    Args:
        content: A mapping of tensors or arrays, or a checkpoint around one.
        source: Named in errors.

    Raises:
        ConvertError: Not a state dict.
    """
    wrappers: set[int] = set()
    while isinstance(content, Mapping) and id(content) not in wrappers:
        wrappers.add(id(content))  # a pickle may hold itself
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content:
        raise ConvertError(
            f"{source} holds no state dict but {type(content).__name__} of "
            f"{len(content) if isinstance(content, Mapping) else 'no'} tensors; "
            "give the file with the model's weights"
        )
    tensors = {str(key): _tensor(str(key), value, source) for key, value in content.items()}
    while all(key.startswith(PARALLEL_PREFIX) for key in tensors):
        tensors = {key.removeprefix(PARALLEL_PREFIX): value for key, value in tensors.items()}
    return tensors


def _tensor(key: str, value: object, source: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value))
    raise ConvertError(
        f"{source} holds no state dict: '{key}' is {type(value).__name__} and not a tensor; "
        "give the file with the model's weights"
    )


def _content(path: Path, suffix: str) -> object:
    match suffix:
        case ".safetensors":
            return load_file(str(path))
        case ".pkl":
            with path.open("rb") as file:
                return _ArraysOnly(file, encoding="latin1").load()
        case _:
            return torch.load(path, map_location="cpu", weights_only=True)


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays, numbers and plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> object:
        """The few callables that pickled arrays need."""
        match module.replace("numpy._core.", "numpy.core."), name:
            case "numpy.core.multiarray", "_reconstruct":
                return _unfilled_array
            case "numpy.core.multiarray", "scalar":
                return _number
            case "numpy.core.numeric", "_frombuffer":
                return _array
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "collections", "OrderedDict":
                return OrderedDict
            case "_codecs", "encode":  # how old protocols store bytes
                return _latin1
        raise pickle.UnpicklingError(f"{HOLDS_CODE}{module}.{name}")


def _unfilled_array(kind: object, shape: object, code: object) -> NDArray[np.int8]:
    """An array to be filled by the state that follows in the pickle."""
    return np.empty(0, dtype=np.int8)


def _array(
    data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...], order: Literal["C", "F"]
) -> NDArray[np.generic]:
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _number(dtype: np.dtype[np.generic], data: bytes) -> object:
    if dtype.hasobject:
        raise pickle.UnpicklingError(f"{HOLDS_CODE}an object in place of a number")
    return np.frombuffer(data, dtype=dtype)[0]


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
