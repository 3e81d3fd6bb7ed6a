"""What times are measured on: the processor or GPU, threads, versions, the day."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch


def machine(device: torch.device | str) -> dict[str, object]:
    """What is written beside the times that were measured on a device."""
    place = torch.device(device)
    return {
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "when": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []  # Linux alone has it
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
