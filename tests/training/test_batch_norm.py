"""Do the statistics of BatchNorm layers stay as they are where they are told to, and only there?"""

from __future__ import annotations

import pytest
import torch

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch
from diffinst.training.batch_norm import fixed_statistics, running_statistics


@pytest.fixture
def network() -> DiffusionInstNetwork:
    """Counts in backbone and mask branch."""
    config = Config.from_preset("tiny").updated(model={"backbone": {"norm": "train"}})
    return DiffusionInstNetwork(config.model).train()


def test_statistics_are_fixed_for_a_while_only(network: DiffusionInstNetwork) -> None:
    network.mask_branch.eval()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    batch = ImageBatch(torch.rand(1, 3, 64, 64) * 255, ((64, 64),))
    learning = [norm.training for norm in norms]
    assert {True, False} == set(learning)
    before = [value.clone() for value in network.buffers()]

    with fixed_statistics(network):
        network.encode(batch)
        assert [norm.training for norm in norms] == learning
        # at test time, the counted statistics are what is used
        assert all(n.track_running_stats != n.training for n in norms)
    assert all(map(torch.equal, before, network.buffers()))
    with pytest.raises(KeyError), fixed_statistics(network):
        raise KeyError
    assert all(norm.track_running_stats for norm in norms)
    network.encode(batch)
    assert not all(map(torch.equal, before, network.buffers()))


def test_statistics_that_move_are_those_of_norms_that_learn(network: DiffusionInstNetwork) -> None:
    everywhere = running_statistics(network)
    network.mask_branch.eval()
    backbone = running_statistics(network)
    own = {id(b) for b in network.backbone.buffers()}
    assert {id(b) for b in backbone} == own and len(everywhere) > len(backbone)
    assert running_statistics(network.eval()) == []
