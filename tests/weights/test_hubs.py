"""Are detectors of other libraries found by name, and is the rest one clear line?"""

from __future__ import annotations

import socket
from pathlib import Path

import huggingface_hub
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from diffinst.weights import hubs
from diffinst.weights.store import CheckpointError

BASE = "facebook/mask2former-swin-base-coco-instance"


@pytest.mark.parametrize("model", hubs.TORCHVISION)
def test_torchvision_is_asked_for_tensors_alone(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def load(url: str, **how: object) -> dict[str, Tensor]:
        asked.update(url=url, patience=socket.getdefaulttimeout(), **how)
        return {"backbone.body.conv1.weight": torch.ones(1)}

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)
    assert hubs.fetch(f"torchvision:{model}")["backbone.body.conv1.weight"] == 1
    assert str(asked["url"]).endswith(".pth") and f"{model}_coco-" in str(asked["url"])
    assert asked["weights_only"] is True and asked["check_hash"] is True
    assert asked["patience"] == hubs.TIMEOUT and socket.getdefaulttimeout() is None


def test_transformers_loads_the_file_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.ones(2)}, str(tmp_path / "model.safetensors"))
    asked = []

    def download(repo: str, file: str) -> str:
        asked.append((repo, file))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert torch.equal(hubs.fetch(f"transformers:{BASE}")["a"], torch.ones(2))
    assert asked == [(BASE, "model.safetensors")]


def test_what_lies_in_the_cache_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2)}, str(file))

    def gone(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(file))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", gone)
    assert list(hubs.fetch(f"transformers:{BASE}")) == ["a"]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("torchvision:maskrcnn_resnet50_fpn", "https://download.pytorch.org/models/maskrcnn_"),
        (f"transformers:{BASE}", f"https://huggingface.co/{BASE}/resolve/main/model.safetensors"),
    ],
)
def test_no_network_is_one_line(
    name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(CheckpointError) as error:
        hubs.fetch(name)
    said = str(error.value)
    assert said.startswith(f"{name} cannot be loaded (no route to host); fetch {url}")
    assert "--from FILE" in said and "\n" not in said


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("torchvision:maskrcnn_resnet50_fpn_v3", "torchvision:maskrcnn_resnet50_fpn_v2"),
        ("torchvison:maskrcnn_resnet50_fpn", "torchvision:maskrcnn_resnet50_fpn"),
        ("torchvision:MaskRCNN_ResNet50_FPN", "torchvision:maskrcnn_resnet50_fpn"),
        ("transformers:mask2former-swin-base-coco-instance", f"transformers:{BASE}"),
    ],
)
def test_a_wrong_name_is_put_right(wrong: str, meant: str) -> None:
    with pytest.raises(CheckpointError) as error:
        hubs.fetch(wrong)
    assert str(error.value).startswith(f"no weights '{wrong}'; did you mean '{meant}'? known are ")


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(CheckpointError, match=r"no weights 'https://x\.org/a\.pth'; known are"):
        hubs.fetch("https://x.org/a.pth")


def test_paths_are_no_names() -> None:
    assert hubs.is_name("torchvision:x") and hubs.is_name("https://x.org")
    assert not any(map(hubs.is_name, ("C:\\a.pkl", "runs/a", "owner/name", "./a:b", "nano")))
