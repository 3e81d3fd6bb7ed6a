"""What an exported model takes and gives: export.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

Format = Literal["torch-export", "onnx", "openvino"]
FILES: dict[str, tuple[str, ...]] = {
    "torch-export": ("model.pt2",),
    "onnx": ("model.onnx",),
    "openvino": ("model.bin", "model.xml"),
}
ABOUT = "export.json"


@dataclass(frozen=True)
class About:
    """What an exported model takes and gives; saved beside it as JSON.

    Attributes:
        format: Its kind.
        size: (height, width) of its images.
        steps: Denoising steps.
        proposals: Boxes to start from.
        postprocess: Whether it ends with suppression and masks.
        inputs: Shape of each input, by name; all float32.
        outputs: Names of the outputs, in order.
        class_names: One per label.
        int8: Whether heavy operations are done in eight-bit integers.
        threshold: Lowest score of what `predict` returns; the file gives all.
    """

    format: Format
    size: tuple[int, int]
    steps: int
    proposals: int
    postprocess: bool
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    int8: bool = False
    threshold: float = 0.0


def read_about(folder: str | Path) -> About:
    """What an exported model takes and gives.

    Raises:
        ValueError: The folder holds no exported model.
    """
    file = Path(folder) / ABOUT
    try:
        return msgspec.json.decode(file.read_bytes(), type=About)
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(
            f"{file} is missing or damaged ({error}); write the folder with `diffinst export`"
        ) from error
