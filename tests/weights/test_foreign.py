"""Files of strangers: tensors come out, code stays where it is."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffinst.weights.foreign import ConvertError, flat_tensors, read_foreign

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


class Bomb:
    """Unpickled naively, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_come_back(tmp_path: Path, protocol: int) -> None:
    state = OrderedDict(a=ARRAY, b=np.float64(2.5), c=np.asfortranarray(ARRAY))
    content = {"model": state, "__author__": "someone", "matching_heuristics": True}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    tensors = read_foreign(path)
    assert list(tensors) == ["a", "b", "c"]
    assert tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and tensors["a"].dtype == torch.float32
    assert tensors["b"].item() == 2.5
    assert tensors["c"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "name", ["weights.pth", "weights.pt", "weights.bin", "weights.safetensors"]
)
def test_torch_and_safetensors_files(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.from_numpy(ARRAY), "n": torch.tensor(3)}
    path = tmp_path / name
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    found = read_foreign(path)
    assert torch.equal(found["a"], tensors["a"]) and found["n"] == 3


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, name: str) -> None:
    target, path = tmp_path / "made", tmp_path / name
    content = {"a": torch.from_numpy(ARRAY), "bomb": Bomb(target)}
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps({**content, "a": ARRAY}))
    else:
        torch.save(content, path)
    with pytest.raises(ConvertError, match=r"contains code .* nothing of it was run .*mkdir"):
        read_foreign(path)
    assert not target.exists()


def test_the_bomb_of_these_tests_does_explode(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_say_so(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps({"a": ARRAY}))
    elif name.endswith("pth"):
        torch.save({"a": torch.from_numpy(ARRAY)}, path)
    else:
        save_file({"a": torch.from_numpy(ARRAY)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConvertError, match=f"{name} is no complete .* copy or download it again"):
        read_foreign(path)


def test_what_is_no_weight_file(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"nothing\.pth does not exist"):
        read_foreign(tmp_path / "nothing.pth")
    other = tmp_path / "weights.h5"
    other.write_bytes(b"x")
    with pytest.raises(ConvertError, match=r"cannot read '\.h5' files; allowed: \.pth"):
        read_foreign(other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no state dict but list"),
        ({}, "holds no state dict but dict of 0"),
        ({"a": "text"}, "'a' is str and not a tensor"),
        ({"model": {"a": np.array(["text"])}}, "'a' is ndarray and not a tensor"),
    ],
)
def test_no_state_dict(content: object, message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        flat_tensors(content, "file.pth")


@pytest.mark.parametrize("length", [1, 2])
def test_a_pickle_that_holds_itself_ends(tmp_path: Path, length: int) -> None:
    ring: list[dict[str, object]] = [{} for _ in range(length)]
    for i, one in enumerate(ring):
        one["model"] = ring[(i + 1) % length]
    (tmp_path / "ring.pkl").write_bytes(pickle.dumps(ring[0]))
    with pytest.raises(ConvertError, match=r"ring\.pkl holds no state dict: 'model' is dict and"):
        read_foreign(tmp_path / "ring.pkl")


def test_prefixes_of_parallel_training_go() -> None:
    tensors = flat_tensors({"module.module.a": ARRAY, "module.module.b": ARRAY}, "x")
    assert list(tensors) == ["a", "b"]
    assert list(flat_tensors({"module.a": ARRAY, "b": ARRAY}, "x")) == ["module.a", "b"]
