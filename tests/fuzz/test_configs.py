"""Does a configuration file that is none end `train` with one line that names it?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from mutate import Case, cases, mutated_bytes, mutated_text, mutated_tree
from verdict import Command

from diffinst.config import Config

WHOLE = Config.from_preset("tiny").to_dict()
SHORT = {"base": "tiny", "train": {"lr": 1e-3, "milestones": [3, 4]}, "sampler": {"steps": 2}}


def written(case: Case, folder: Path) -> Path:
    rng = case.rng()
    tree = rng.choice((WHOLE, SHORT))
    as_json = rng.random() < 0.3
    if case.kind == "field":
        for _ in range(rng.randint(1, 2)):
            tree = mutated_tree(tree, rng)
    text = json.dumps(tree) if as_json else yaml.safe_dump(tree)
    if case.kind == "text":
        for _ in range(rng.randint(1, 3)):
            text = mutated_text(text, rng)
    content = text.encode("utf-8", "surrogatepass")
    path = folder / ("fuzz.json" if as_json else "fuzz.yaml")
    path.write_bytes(mutated_bytes(content, rng) if case.kind == "bytes" else content)
    return path


@pytest.mark.parametrize(
    "case",
    [*cases("field", 30, 610), *cases("text", 15, 305), *cases("bytes", 12, 203)],
)
def test_train_refuses_it_or_goes_on_to_the_data(
    case: Case, command: Command, tmp_path: Path
) -> None:
    path = written(case, tmp_path)
    absent, out = tmp_path / "absent", tmp_path / "out"
    ended = command("train", "--config", path, "--data", absent, "--out", out)
    assert ended.code == 1, command.alone()
    command.names(ended, path, f"{absent} is no folder")
    command.whole(out, empty=True)
    if f"{absent} is no folder" in ended.error:
        config = Config.from_file(path)
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
