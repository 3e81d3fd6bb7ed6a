"""Does a GPU give what the CPU gives? Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from diffinst import DiffusionInst
from diffinst.config import Config
from diffinst.data.load import load_split
from diffinst.data.loader import TrainStream, collate
from diffinst.data.synthetic import make_shapes
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import iou
from diffinst.training.criterion import Criterion, Match
from diffinst.training.step import TrainingStep

pytestmark = pytest.mark.gpu


def test_confident_instances_are_the_same() -> None:
    coins = np.ascontiguousarray(data.coins()[::2, ::2])
    found = {
        device: DiffusionInst.from_pretrained("nano-nuclei", device=device).predict(
            coins, steps=2, proposals=100, threshold=0.5
        )
        for device in ("cpu", "cuda")
    }
    assert len(found["cpu"]) == len(found["cuda"]) > 10
    best = iou(found["cpu"].boxes[:, None], found["cuda"].boxes[None]).amax(1)
    assert float((best > 0.95).float().mean()) >= 0.95


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_training_step_has_the_same_loss(
    tmp_path_factory: pytest.TempPathFactory, precision: torch.dtype
) -> None:
    split = load_split(make_shapes(tmp_path_factory.mktemp("shapes"), train=2, val=0), "train")
    config = Config.from_preset("tiny")
    stream = TrainStream(split, config)
    batch = collate([stream[0], stream[1]])
    torch.manual_seed(0)
    step = TrainingStep(DiffusionInstNetwork(config.model), Criterion(config.criterion), 30)
    wanted = step(batch.images, batch.targets, batch.draws)
    on_gpu = batch.to("cuda")
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        output = step.to("cuda")(
            on_gpu.images,
            on_gpu.targets,
            on_gpu.draws,
            match=Match.of(wanted.match.owner.to("cuda")),
        )
    output.losses["loss"].backward()
    limit = 1e-3 if precision == torch.float32 else 0.1
    expected = float(wanted.losses["loss"].detach())
    assert float(output.losses["loss"].detach()) == pytest.approx(expected, rel=limit)
