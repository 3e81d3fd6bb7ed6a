"""Is it said what times were measured on?"""

from __future__ import annotations

import torch

from diffinst.kernels.machine import machine


def test_the_machine_is_named() -> None:
    named = machine("cpu")
    assert named["device"] and named["threads"] == torch.get_num_threads()
    assert named["torch"] == torch.__version__
