"""Are the network's linear layers torch's, in the precision that each is for?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffinst.config import BackboneConfig
from diffinst.kernels import linear
from diffinst.models.backbone import Backbone
from diffinst.models.linear import Linear, OutputLinear


@pytest.mark.parametrize("onednn", [True, False])
def test_the_same_as_torchs(monkeypatch: pytest.MonkeyPatch, onednn: bool) -> None:
    monkeypatch.setattr(linear, "_mkl_holds_back", lambda: onednn)
    torch.manual_seed(0)
    ours = Linear(6, 4)
    theirs = nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_outputs_stay_in_the_precision_of_their_weights() -> None:
    layer = OutputLinear(6, 4)
    x = torch.randn(5, 6).bfloat16()
    assert layer(x).dtype == torch.float32
    torch.testing.assert_close(layer(x), layer(x.float()))


def test_a_backbone_of_linear_layers_has_ours() -> None:
    name = "swin_tiny_patch4_window7_224"
    body = Backbone(BackboneConfig(name=name, freeze_levels=0)).body
    kinds = {type(part) for part in body.modules() if isinstance(part, nn.Linear)}
    assert kinds == {Linear}
