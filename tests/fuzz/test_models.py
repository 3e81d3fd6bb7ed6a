"""Is a model folder that is damaged, foreign or of another shape refused by name?"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from mutate import Case, cases, mutated_bytes, mutated_text, mutated_tree
from safetensors.torch import load_file, save_file
from torch import Tensor
from verdict import Command

KINDS = [
    *cases("config", 16, 154),
    *cases("bytes", 15, 150),
    *cases("tensor", 7, 63),
    *cases("number", 5, 20),
    *cases("foreign", 8, 20),
]


def change_config(file: Path, rng: random.Random) -> None:
    """Its values, its text or its bytes."""
    text = file.read_text("utf-8")
    if rng.random() < 0.2:
        text = mutated_text(text, rng)
    else:
        tree = json.loads(text)
        for _ in range(rng.randint(1, 2)):
            tree = mutated_tree(tree, rng)
        text = json.dumps(tree)
    content = text.encode("utf-8", "surrogatepass")
    file.write_bytes(mutated_bytes(content, rng) if rng.random() < 0.2 else content)


def change_numbers(tensors: dict[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """One number of one of them, or all, are not finite; counters are whole numbers."""
    real = [n for n, value in tensors.items() if value.numel() and value.is_floating_point()]
    key = rng.choice(real)
    changed = tensors[key].to(torch.float32).flatten().clone()
    place = rng.choice((slice(None), rng.randrange(len(changed))))
    changed[place] = rng.choice((torch.inf, -torch.inf, torch.nan))
    return {**tensors, key: changed.view_as(tensors[key])}


def change_tensor(tensors: dict[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """One of them of another shape, gone, or called otherwise."""
    key = rng.choice([name for name, value in tensors.items() if value.numel()])
    value = tensors.pop(key)
    match rng.randrange(5):
        case 0:
            tensors[key] = value[None].clone()
        case 1:
            tensors[key] = torch.cat([value.flatten(), value.flatten()])
        case 2:
            tensors[f"module.{key}"] = value
        case 3:
            tensors[key] = torch.zeros(0)
        case _:
            pass
    return tensors


def change_for_foreign(folder: Path, rng: random.Random) -> None:
    """Files of others under our names."""
    weights = folder / "model.safetensors"
    match rng.randrange(6):
        case 0:
            torch.save({"model": {"a": torch.zeros(2)}}, weights)
        case 1:
            save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, weights)
        case 2:
            shutil.copy(folder / "config.json", weights)
        case 3:
            shutil.copy(weights, folder / "config.json")
        case 4:
            weights.unlink()
            weights.mkdir()
        case _:
            (folder / rng.choice(("config.json", "model.safetensors"))).unlink()


@pytest.mark.parametrize("case", KINDS)
def test_info_refuses_it(
    case: Case, command: Command, model: Path, shapes: Path, tmp_path: Path
) -> None:
    rng = case.rng()
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    weights = folder / "model.safetensors"
    match case.kind:
        case "config":
            change_config(folder / "config.json", rng)
        case "bytes":
            weights.write_bytes(mutated_bytes(weights.read_bytes(), rng))
        case "tensor":
            save_file(change_tensor(load_file(weights), rng), weights)
        case "number":
            save_file(change_numbers(load_file(weights), rng), weights)
        case _:
            change_for_foreign(folder, rng)
    given = weights if rng.random() < 0.2 else folder
    ended = command("info", given)
    command.names(ended, given, folder)
    assert ended.code or case.kind in ("config", "bytes"), f"it was loaded{command.alone()}"
