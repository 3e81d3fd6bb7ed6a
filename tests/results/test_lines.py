"""Does each line hold an instance that pycocotools gives back?"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pycocotools import mask as coco_mask

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.lines import write_lines


def test_lines_give_masks_back_in_their_windows(tmp_path: Path) -> None:
    dense = torch.zeros(1, 8, 10, dtype=torch.bool)
    dense[0, 1:4, 4:7] = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.bool)
    found = Instances(
        torch.tensor([[4.0, 1.0, 7.25, 4.0]]),
        torch.tensor([0.5]),
        torch.tensor([1]),
        CroppedMasks.from_dense(dense),
        (8, 10),
        ("cat", "dog"),
    )
    assert write_lines(tmp_path / "found.jsonl", [found, found]) == 2
    first, second = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert (first["id"], second["id"], first["class"], first["score"]) == (1, 2, "dog", 0.5)
    assert (first["box"], first["window"]) == ([4, 1, 7.25, 4], [1, 4, 3, 3])
    mask = coco_mask.decode({"size": first["window"][2:], "counts": first["counts"].encode()})
    assert mask.tolist() == dense[0, 1:4, 4:7].int().tolist()
