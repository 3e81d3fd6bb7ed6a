"""Do saved models come back whole, and does everything else say what is wrong with it?"""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights import store
from diffinst.weights.store import CheckpointError

HUB_ID = "someone/tiny-shapes"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def network() -> DiffusionInstNetwork:
    torch.manual_seed(0)
    return DiffusionInstNetwork(Config.from_preset("tiny").model)


@pytest.fixture(scope="module")
def original(network: DiffusionInstNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test changes."""
    return store.save(network, Config.from_preset("tiny"), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(original, tmp_path / "model")


def edit_config(folder: Path, part: str, **fields: object) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    target = values
    for name in part.split("."):
        target = target[name]
    target.update(fields)
    path.write_text(json.dumps(values))


def test_a_folder_or_its_weights_file_come_back_whole(
    original: Path, network: DiffusionInstNetwork
) -> None:
    for source in (original, str(original), original / "model.safetensors"):
        loaded, config = store.load(source)
        assert config == Config.from_preset("tiny")
        assert not loaded.training
        state = loaded.state_dict()
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    names = {"README.md", "config.json", "model.safetensors"}
    assert {p.name for p in original.iterdir()} == names


def test_the_model_part_is_the_networks_and_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    preset = Config.from_preset("tiny")
    here = preset.updated(
        model={"num_classes": 5, "backbone": {"weights_file": str(tmp_path / "r.safetensors")}}
    )
    network = DiffusionInstNetwork(here.model)
    store.save(network, preset, tmp_path / "model")  # a config that says 3 classes
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    loaded, config = store.load(tmp_path / "model")
    assert loaded.config.num_classes == config.model.num_classes == 5


def test_half_precision_is_half_the_file_and_comes_back_as_floats(
    original: Path, network: DiffusionInstNetwork, tmp_path: Path
) -> None:
    store.save(network, Config.from_preset("tiny"), tmp_path, dtype=torch.float16)
    size, full = ((f / "model.safetensors").stat().st_size for f in (tmp_path, original))
    assert 0.45 < size / full < 0.55
    state = store.load(tmp_path)[0].state_dict()
    for key, value in network.state_dict().items():
        assert state[key].dtype == value.dtype, key
        torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-6)


def test_a_missing_folder_says_what_could_be_given(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model '.*gone'.*owner/name.*from_preset"):
        store.load(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"'nanonuclei' \(did you mean 'nano-nuclei'\?\)"):
        store.load("nanonuclei")
    with pytest.raises(CheckpointError, match=r"no model 'gone'.*shipped weights are"):
        store.load("gone")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_names_the_file_that_lacks(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"model holds no {name}"):
        store.load(folder)


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.5, 0.99])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a complete.*download"):
        store.load(folder)


def test_another_architecture_lists_keys(folder: Path) -> None:
    edit_config(folder, "model.decoder", stages=3)
    with pytest.raises(CheckpointError, match=r"missing \(decoder\.stages\.2\..*diffinst convert"):
        store.load(folder)
    edit_config(folder, "model.decoder", stages=1)
    with pytest.raises(CheckpointError, match=r"unknown \(decoder\.stages\.1\."):
        store.load(folder)
    edit_config(folder, "model.decoder", stages=2, feedforward=32)
    with pytest.raises(CheckpointError, match=r"wrong shape \(.*expand\.weight is \(64, 32\), exp"):
        store.load(folder)


def test_weights_of_something_else(folder: Path) -> None:
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"2 unknown \(a, b"):
        store.load(folder)


def test_other_classes_name_both_counts(folder: Path) -> None:
    edit_config(folder, "model", num_classes=7)
    with pytest.raises(CheckpointError, match=r"trained for 3 classes, the config says 7; set"):
        store.load(folder)


@pytest.mark.parametrize(
    ("bad", "said"),
    [(float("nan"), "NaN"), (float("-inf"), "-inf"), (float("inf"), "inf"), (1e38, r"1e\+38")],
)
def test_weights_that_are_no_numbers(folder: Path, bad: float, said: str) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    key = "fpn.lateral.0.weight" if "fpn.lateral.0.weight" in tensors else sorted(tensors)[0]
    tensors[key].view(-1)[3] = bad
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=rf"^{path}: {key} holds {said}, .*copy it again"):
        store.load(folder)


@pytest.mark.parametrize("name", ["model_final.pth", "swin.pkl", "weights.pt"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} is a pickle.*`diffinst convert .*{name}"):
        store.load(tmp_path / name)


def test_a_file_of_another_name_asks_for_the_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: expected model\.safetensors"):
        store.load(folder / "config.json")


def test_a_wrong_config_names_file_and_field(folder: Path) -> None:
    edit_config(folder, "sampler", colour="red")
    with pytest.raises(
        CheckpointError, match=r"config\.json: unknown field 'sampler\.colour'.*another version"
    ):
        store.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not readable JSON"):
        store.load(folder)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and no network; both are read from the environment at import only."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_that_cannot_be_had_is_one_clear_error(hub_cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'someone/tiny-shapes' is neither a folder here"):
        store.load(HUB_ID)
    with pytest.raises(CheckpointError, match=r"'a b/c\?' is neither a folder here"):
        store.load("a b/c?")


def test_a_hub_id_in_the_cache_loads_offline(original: Path, hub_cache: Path) -> None:
    repository = hub_cache / "models--someone--tiny-shapes"
    shutil.copytree(original, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert store.load(HUB_ID)[1] == Config.from_preset("tiny")
    (repository / "snapshots" / COMMIT / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        store.load(HUB_ID)


def test_an_interrupted_write_leaves_the_previous_files(
    folder: Path, network: DiffusionInstNetwork
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises((CheckpointError, OSError), match=r"model\.safetensors") as caught:
            store.save(network, Config.from_preset("nano"), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "previous file is intact" in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_shipped_names_are_folders_that_load() -> None:
    for name in store.shipped_names():
        folder = store.locate(name)
        assert (folder / "config.json").is_file()
        assert load_file(folder / "model.safetensors")
