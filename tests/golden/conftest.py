"""The reference folder: its files, images, and networks filled with the recipe's weights."""

import importlib.util
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.images import pad_batch
from diffinst.structures import ImageBatch
from diffinst.weights.convert import convert_official


@dataclass(frozen=True)
class Filled:
    """A network with the recipe's weights.

    Attributes:
        network: Shared between tests; `Reference.filled` resets it.
        config: As converted.
        ours: Our tensor names by official key.
    """

    network: DiffusionInstNetwork
    config: Config
    ours: dict[str, str]


class Reference:
    """A folder of the layout that its README.md describes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = importlib.util.spec_from_file_location("reference_recipe", folder / "recipe.py")
        assert spec is not None and spec.loader is not None
        self.recipe: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.recipe)
        self._kept: tuple[tuple[str, int], Filled, dict[str, Tensor]] | None = None

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        with np.load(self.folder / name) as archive:
            return {key: archive[key] for key in archive.files}

    def filled(self, meta: dict[str, Any]) -> Filled:
        """The network of a file's `meta`, in eval mode, as if new; one at a time is in memory."""
        wanted = (str(meta["config"]), int(meta["num_classes"]))
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None
            self._kept = (wanted, *self._fill(*wanted))
        _, filled, tensors = self._kept
        filled.network.load_state_dict(tensors)
        filled.network.zero_grad(set_to_none=True)
        filled.network.eval()
        return filled

    def _fill(self, config_name: str, num_classes: int) -> tuple[Filled, dict[str, Tensor]]:
        manifest = json.loads((self.folder / f"manifest_{config_name}.json").read_text())
        state = {}
        for key, entry in manifest["keys"].items():
            shape = list(entry["shape"])
            if ".class_logits." in key or key.endswith("fed_loss_cls_weights"):
                shape[0] = num_classes  # a file may have other classes than the manifest
            array = self.recipe.weight(key, shape)
            if array is not None:
                state[key] = torch.from_numpy(array)
            elif "." in key:  # left as built: counters, indices, class counts
                state[key] = torch.zeros(shape, dtype=getattr(torch, entry["dtype"]))
        config, tensors = convert_official(state, source=config_name)
        places = {value.data_ptr(): key for key, value in tensors.items()}  # nothing is copied
        ours = {k: places[v.data_ptr()] for k, v in state.items() if v.data_ptr() in places}
        assert len(ours) == len(tensors)
        return Filled(DiffusionInstNetwork(config.model), config, ours), tensors

    def batch(self, seeds: list[int], sizes: list[tuple[int, int]]) -> ImageBatch:
        images = [
            torch.from_numpy(self.recipe.image(seed, *size)).permute(2, 0, 1)
            for seed, size in zip(seeds, sizes, strict=True)
        ]
        return pad_batch(images)

    @staticmethod
    def unpack(packed: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """Packed masks to bool (n, h, w)."""
        height, width = size
        bits = np.unpackbits(packed, axis=1)[:, : height * width]
        return torch.from_numpy(bits.reshape(-1, height, width).astype(bool))

    @staticmethod
    def subsampled(full: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Every k-th entry along the axes that the file stores thinned out (large class counts)."""
        for axis, stored in enumerate(shape):
            length = full.shape[axis]
            if stored != length:
                step = next(k for k in (5, 10) if math.ceil(length / k) == stored)
                full = full.index_select(axis, torch.arange(0, length, step))
        return full


FILES = {"training_file": "08*_train_step*.npz", "inference_file": "09_infer_*.npz"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(array): runs for the files that hold this array")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run of a whole-model test per file there is, files of one network side by side."""
    for fixture, pattern in FILES.items():
        if fixture in metafunc.fixturenames:
            needs = metafunc.definition.get_closest_marker("needs")
            folder = reference_folder()
            found = sorted(folder.glob(pattern), key=lambda path: (config_of(path), path.name))
            if needs is not None:
                found = [path for path in found if holds(path, needs.args[0])]
            names = [path.name for path in found] or [pattern]
            metafunc.parametrize(fixture, names, indirect=True, scope="module")


def reference_folder() -> Path:
    """Where `reference_dir` looks; tests are collected before there are fixtures."""
    default = Path(__file__).resolve().parents[3] / "shared" / "reference"
    return Path(os.environ.get("DIFFINST_REFERENCE") or default)


def holds(path: Path, key: str) -> bool:
    with np.load(path) as archive:
        return key in archive.files


def config_of(path: Path) -> str:
    with np.load(path) as archive:
        return str(json.loads(str(archive["meta"]))["config"])


@pytest.fixture(scope="module")
def reference(reference_dir: Path) -> Reference:
    return Reference(reference_dir)


@pytest.fixture(scope="module")
def training_file(request: pytest.FixtureRequest, reference_dir: Path) -> str:
    return existing(reference_dir, request.param)


@pytest.fixture(scope="module")
def inference_file(request: pytest.FixtureRequest, reference_dir: Path) -> str:
    return existing(reference_dir, request.param)


def existing(folder: Path, name: str) -> str:
    assert (folder / name).is_file(), f"{folder} holds no {name}"
    return name
