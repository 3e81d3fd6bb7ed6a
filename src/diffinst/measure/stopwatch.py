"""Where the time of a prediction goes: seconds by part of the pipeline and of the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import isgeneratorfunction
from typing import Any

import torch

from diffinst.inference import pipeline
from diffinst.inference.pipeline import Pipeline
from diffinst.models.network import DiffusionInstNetwork

ENCODER_PARTS = {"backbone": "backbone", "fpn": "pyramid", "mask_branch": "mask branch"}
PIPELINE_PARTS = {
    "prepare": "preprocess",
    "encode": "table of the pyramid",
    "run": "sampler",
}
FUNCTIONS = {"select": "suppression", "crop_masks": "masks in boxes"}
STAGE = "decoder: towers, norms, boxes"  # of a stage, all but the following
STAGE_PARTS = {
    "rois": "decoder: RoI features",
    "attention": "decoder: attention",
    "interaction": "decoder: dynamic convolution",
    "expand": "decoder: feed-forward",
    "contract": "decoder: feed-forward",
}


class Stopwatch:
    """Adds up seconds by name; on a GPU it waits for the work to be done before each reading.

    Args:
        device: Where the work runs.

    Attributes:
        seconds: So far, by name.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._open: list[tuple[str, float, float]] = []  # name, begin, counted before it

    def now(self) -> float:
        """Seconds on a clock of no particular origin."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what happens inside as `name`, less what parts within it take."""
        self._enter(name)
        yield
        self._leave()

    def _enter(self, name: str, *_: object) -> None:
        self._open.append((name, self.now(), sum(self.seconds.values())))

    def _leave(self, *_: object) -> None:
        name, begin, counted = self._open.pop()
        within = sum(self.seconds.values()) - counted
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - begin - within

    @contextmanager
    def watching(self, network: DiffusionInstNetwork) -> Iterator[None]:
        """Counts the parts of any pipeline, and the network's, while inside."""
        parts = {network.get_submodule(module): name for module, name in ENCODER_PARTS.items()}
        for stage in network.decoder.stages:
            parts[stage] = STAGE
            parts |= {stage.get_submodule(m): name for m, name in STAGE_PARTS.items()}
        with ExitStack() as hooks:
            for module, name in parts.items():
                before = module.register_forward_pre_hook(partial(self._enter, name))
                hooks.callback(before.remove)
                hooks.callback(module.register_forward_hook(self._leave).remove)
            for owner, named in ((Pipeline, PIPELINE_PARTS), (pipeline, FUNCTIONS)):
                for function, name in named.items():
                    plain = getattr(owner, function)
                    setattr(owner, function, self._timed(name, plain))
                    hooks.callback(setattr, owner, function, plain)
            yield

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: object) -> object:
            with self.part(name):
                return method(*given)

        def each_item(*given: object) -> Iterator[object]:
            items = method(*given)
            while True:
                with self.part(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return each_item if isgeneratorfunction(method) else call
