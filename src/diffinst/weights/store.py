"""Saving and loading models: config.json, model.safetensors and a card, each whole or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffinst.config import Config, ConfigError
from diffinst.config.explain import did_you_mean
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.hub import offline_at_once
from diffinst.io.one_line import first_line
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights.card import CARD_FILE, Card, write_card
from diffinst.weights.foreign import PICKLES
from diffinst.weights.runs import CHECKPOINT, instead_of_checkpoint, instead_of_run

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LARGEST = 1e12
"""Of a weight; products of larger ones leave the range of float32."""


class CheckpointError(ValueError):
    """Weights that cannot be used: names the file, what is wrong with it and what to do."""


def shipped_names() -> tuple[str, ...]:
    """Names of the weights that come with the package."""
    folder = resources.files("diffinst") / "weights" / "shipped"
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if (p / WEIGHTS_FILE).is_file()))


def save(
    network: DiffusionInstNetwork,
    config: Config,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    card: Card | None = None,
) -> Path:
    """Write weights, config and card (README.md); the previous files survive any failure.

    Args:
        network: What to save.
        config: Saved whole; its `model` part is the network's.
        folder: Made if needed.
        dtype: Of the stored floating-point weights; float16 halves the file.
        card: What is known of the weights; a README.md that a person wrote stays as it is.

    Returns:
        The folder.

    Raises:
        CheckpointError: The weights could not be written whole (a full disk).
        OSError: As in `atomic_path`.
    """
    folder = Path(folder)
    tensors = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    values = config.model_copy(update={"model": network.config}).to_dict()
    values["model"]["backbone"]["weights_file"] = None  # a path of one machine
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_json(folder / CONFIG_FILE, values)
    write_card(folder, Config.from_dict(values), card or Card())
    return folder


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically, readable by whom the umask lets.

    Raises:
        CheckpointError: The weights could not be written whole (a full disk).
        OSError: As in `atomic_path`.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # save_file makes files that only their owner can read
            save_file(tensors, str(temporary), metadata={"format": "pt", "library": "diffinst"})
            temporary.chmod(mode)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} could not be written ({error}); a previous file is intact: "
            "free some space there or choose another folder"
        ) from error


def load(source: str | Path) -> tuple[DiffusionInstNetwork, Config]:
    """A network in eval mode and its config.

    Args:
        source: Name of shipped weights, a folder made by `save`, its model.safetensors, or a hub id
            (`owner/name`), downloaded by huggingface_hub.

    Raises:
        CheckpointError: Nothing there, truncated, or of another architecture.
    """
    folder = locate(source)
    config = _read_config(folder / CONFIG_FILE)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    network = DiffusionInstNetwork(config.model)
    fill(network, tensors, source=str(folder / WEIGHTS_FILE))
    return network.eval(), config


def fill(network: DiffusionInstNetwork, tensors: dict[str, Tensor], *, source: str) -> None:
    """Load every tensor; each must be there, of the right shape, and none be left over.

    Raises:
        CheckpointError: Names the first keys that differ, and the class count where that is it; or
            the tensor that holds no usable numbers.
    """
    expected = network.state_dict()
    problems = differences(tensors, expected)
    if problems:
        if list(problems) == ["wrong shape"] and all(
            "class_logits" in line for line in problems["wrong shape"]
        ):
            saved = tensors["decoder.stages.0.class_logits.bias"].shape[0]
            raise CheckpointError(
                f"{source} was trained for {saved} classes, the config says "
                f"{network.config.num_classes}; set model.num_classes to {saved}"
            )
        listed = "; ".join(
            f"{len(lines)} {label} ({', '.join(lines[:3])}, ...)"
            for label, lines in problems.items()
        )
        raise CheckpointError(
            f"{source} does not fit this architecture: {listed}. Use the config.json "
            "saved with the weights; for official DiffusionInst files run `diffinst convert`"
        )
    fitting = {key: value.to(expected[key].dtype) for key, value in tensors.items()}
    _check_values(fitting, source)
    network.load_state_dict(fitting)


def _check_values(tensors: Mapping[str, Tensor], source: str) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and value.numel():
            low, high = (float(end) for end in torch.aminmax(value))  # NaN if one is
            if not -LARGEST <= low <= high <= LARGEST:
                found = "NaN" if low != low else f"{low if -low > high else high:.3g}"
                raise CheckpointError(
                    f"{source}: {key} holds {found}, which no network can compute with (finite "
                    f"numbers up to {LARGEST:g} are allowed); the file is damaged or its training "
                    "went astray: copy it again, or use an earlier model"
                )


def differences(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, list[str]]:
    """Keys by what is wrong with them, `missing`, `unknown`, `wrong shape`; empty where all fit."""
    problems = {
        "missing": [key for key in expected if key not in tensors],
        "unknown": [key for key in tensors if key not in expected],
        "wrong shape": [
            f"{key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            for key, value in tensors.items()
            if key in expected and value.shape != expected[key].shape
        ],
    }
    return {label: lines for label, lines in problems.items() if lines}


def locate(source: str | Path) -> Path:
    """The folder a model's files lie in.

    Raises:
        CheckpointError: There is none; says what was looked for.
    """
    text = str(source)
    path = Path(source)
    if path.is_dir():
        folder = path
    elif path.is_file():
        if path.suffix == CHECKPOINT.suffix:
            raise CheckpointError(instead_of_checkpoint(path))
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(
                f"{path} is a pickle; turn an official file into safe weights first: "
                f"`diffinst convert {path} --out FOLDER`, then load FOLDER"
            )
        folder = path.parent
        if path.name != WEIGHTS_FILE:
            raise CheckpointError(
                f"{path}: expected {WEIGHTS_FILE} with {CONFIG_FILE} beside it; give the folder"
            )
    elif text in shipped_names():
        return Path(str(resources.files("diffinst") / "weights" / "shipped" / text))
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")):
        folder = _download(text)
    else:
        raise CheckpointError(
            f"no model '{text}'{did_you_mean(text, shipped_names())}: it is not a folder, not a "
            f"file, and the shipped weights are {', '.join(shipped_names()) or '(none)'}. A hub id "
            "looks like owner/name; for fresh weights use DiffusionInst.from_preset(...)"
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} holds no {name}; a model folder has {CONFIG_FILE} and {WEIGHTS_FILE}"
                + instead_of_run(folder)
            )
    return folder


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    unreachable = None
    try:
        wanted = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
        with offline_at_once() as unreachable:
            return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = unreachable or first_line(error)
        raise CheckpointError(
            f"'{hub_id}' is neither a folder here nor to be had from the hub ({reason}); "
            f"shipped weights: {', '.join(shipped_names()) or '(none)'}"
        ) from error


def _read_config(path: Path) -> Config:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})") from error
    try:
        return Config.from_dict(values, source=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; was it written by another version?") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); it may be truncated: "
            "copy or download it again"
        ) from error
