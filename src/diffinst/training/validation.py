"""One evaluation during training: predicts val images, scores those of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.comparison import side_by_side
from diffinst.evaluation.prediction import Prediction, predictions, request, score_threshold
from diffinst.evaluation.report import Report, score
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError
from diffinst.models.network import DiffusionInstNetwork
from diffinst.results.render.sheet import contact_sheet

SHEET_IMAGES = 6
SHEET_TILE = 320  # pixels wide; two tiles an image, two images a row


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
        self._threshold = score_threshold(config)
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
            if len(self._drawn) < 2 * SHEET_IMAGES:
                sure = [r for r in outcome.results if r["score"] >= self._threshold]
                self._drawn += side_by_side(
                    record, sure, self._split, SHEET_TILE, self._model.config.preprocess
                )

    def report(self, processes: int = 1) -> Report:
        """The scores over the images of all processes, which have to call it together."""
        found = self._predictions
        if processes > 1:
            parts: list[Any] = [None] * processes
            torch.distributed.all_gather_object(parts, found)
            found = [prediction for part in parts for prediction in part]
        return score(self._split, found, self._asked.max_detections)

    def save_sheet(self, path: Path, iteration: int) -> None:
        """Draw this process's first images, if there are any, prediction beside annotation.

        Args:
            path: A .png file.
            iteration: Steps done; stands at the top.
        """
        if self._drawn:
            heading = (
                f"Iteration {iteration}: prediction beside annotation, {self._split.name}, "
                f"scores of {self._threshold:g} or more"
            )
            sheet = contact_sheet(self._drawn, columns=4, tile_width=SHEET_TILE, heading=heading)
            with atomic_path(path) as temporary:
                sheet.save(temporary, format="PNG")
