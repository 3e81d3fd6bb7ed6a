"""Do `eval` and `doctor` end as they should on annotations that are none, in every format?"""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import formats
import numpy as np
import pytest
from mutate import Case, cases, mutated_bytes, mutated_text, mutated_tree
from verdict import Command

from diffinst.config import Config
from diffinst.datasets.load import check_trainable, load_split
from diffinst.training.loader import load_augmented

TINY = Config.from_preset("tiny")
WRITERS: dict[str, Callable[[Path, Path, formats.Edit], Path]] = {
    "coco": formats.coco,
    "lvis": formats.lvis,
    "cvat": formats.cvat,
    "labelme": formats.labelme,
    "yolo": formats.yolo,
    "yaml": partial(formats.yolo, labels=False),
}
ALL = [
    *cases("coco", 17, 308),
    *cases("lvis", 10, 155),
    *cases("cvat", 14, 206),
    *cases("labelme", 14, 206),
    *cases("yolo", 11, 104),
    *cases("yaml", 11, 104),
]


def edited(text: str, kind: str, rng: random.Random) -> bytes:
    """Values where the format has a tree, its text, or its bytes."""
    way = rng.random()
    if way > 0.85:
        return mutated_bytes(text.encode(), rng)
    if kind in ("coco", "lvis", "labelme") and way < 0.7:
        tree = json.loads(text)
        for _ in range(rng.randint(1, 2)):
            tree = mutated_tree(tree, rng)
        return json.dumps(tree).encode()
    for _ in range(rng.randint(1, 2)):
        text = mutated_text(text, rng)
    return text.encode("utf-8", "surrogatepass")


def gets_through(root: Path) -> bool:
    """Whether training gets through each image once."""
    with contextlib.suppress(ValueError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = load_split(root, "train")
        check_trainable(train)
        for record in train.records:
            load_augmented(record, TINY, np.random.default_rng(0))
        return True
    return False


@pytest.mark.parametrize("case", ALL)
def test_eval_and_doctor_refuse_the_same(
    case: Case, command: Command, shapes: Path, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    root.mkdir()
    WRITERS[case.kind](shapes, root, partial(edited, kind=case.kind, rng=case.rng()))
    absent = tmp_path / "absent"
    ended = command("eval", "--data", root, "--split", "train", "--model", absent, "--out", out)
    assert ended.code == 1, command.alone()
    command.names(ended, root, absent)
    command.whole(out, empty=True)
    sound = gets_through(root)
    if str(absent) not in ended.error:
        assert not sound, f"eval refuses what training takes{command.alone((), ended)}"
    told = command("doctor", root, "--out", out, "--json", "--samples", 1, reports=True)
    command.whole(out)
    if not told.out:  # no report where nothing can be told
        command.names(told, root)  # in the one line that there has to be
        assert not sound, f"doctor refuses what training takes{command.alone((), told)}"
        return
    report = json.loads(told.out)
    assert report["breaks"] == bool(told.code), command.alone()
    said = f"{report['verdicts']}, {[f['code'] for f in report['findings']]}"
    assert report["breaks"] != sound, f"training and doctor disagree: {said}{command.alone()}"
