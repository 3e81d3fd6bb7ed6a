"""One evaluation during training: predicts val images, scores those of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.prediction import Prediction, as_instances, predictions, request
from diffinst.evaluation.report import Report, score
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError, read_image
from diffinst.models.network import DiffusionInstNetwork
from diffinst.results.render.sheet import contact_sheet

SHEET_IMAGES = 6
SHEET_SCORE = 0.3


class Validation:
    """What a process has predicted so far.

    Args:
        network: Predicts.
        config: How it predicts.
        split: Annotated images.

    Attributes:
        failed: One message per image that could not be predicted; the others are scored.
    """

    def __init__(self, network: DiffusionInstNetwork, config: Config, split: Split) -> None:
        self._split = split
        self._asked = request(config, split)
        self._model = DiffusionInst(network, config)
        self._predictions: list[Prediction] = []
        self._drawn: list[tuple[Image.Image, str]] = []
        self.failed: list[str] = []

    def predict(self, records: Sequence[ImageRecord]) -> None:
        """Take some of the images, best as many as go through the network together."""
        for record, outcome in predictions(self._model, records, self._asked):
            if isinstance(outcome, ImageReadError):
                self.failed.append(str(outcome))
                continue
            self._predictions.append(outcome)
            if len(self._drawn) < SHEET_IMAGES:
                sure = [r for r in outcome.results if r["score"] >= SHEET_SCORE]
                image = read_image(record.path, self._model.config.preprocess)
                drawn = as_instances(sure, record, self._split).plot(image)
                self._drawn.append((drawn, record.path.name))

    def report(self, processes: int = 1) -> Report:
        """The scores over the images of all processes, which have to call it together."""
        found = self._predictions
        if processes > 1:
            parts: list[Any] = [None] * processes
            torch.distributed.all_gather_object(parts, found)
            found = [prediction for part in parts for prediction in part]
        return score(self._split, found, self._asked.max_detections)

    def save_sheet(self, path: Path) -> None:
        """Draw this process's first images, if there are any."""
        if self._drawn:
            sheet = contact_sheet(self._drawn, columns=3)
            with atomic_path(path) as temporary:
                sheet.save(temporary, format="PNG")
