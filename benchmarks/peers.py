"""Other models of the field in the same race, where their package is installed.

pip install transformers  # Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffinst.measure.benchmark import noise_image

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def mask2former(size: tuple[int, int], device: torch.device) -> Callable[[], Tensor]:
    """Mask2Former (Cheng et al., 2022) for 80 classes with random weights.

    It ends with the masks of all queries, their logits resampled to the size of the image.
    """
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        ResNetConfig,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    config = Mask2FormerConfig(
        backbone_config=ResNetConfig(out_features=stages), num_queries=100, num_labels=80
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config).eval().to(device)
    image = torch.from_numpy(noise_image(size)).permute(2, 0, 1).to(device)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))

    def run() -> Tensor:
        with torch.inference_mode():
            found = model(((image.float() - mean) / std)[None])
            logits = torch.nn.functional.interpolate(
                found.masks_queries_logits, size=size, mode="bilinear", align_corners=False
            )
            return logits[0] > 0

    return run


PEERS = {"Mask2Former R50 fp32, 100 queries (transformers)": mask2former}
"""Each makes a prediction from the size of an image and a device; to full-size masks."""
