"""One evaluation during training: predicts val images, scores those of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.average_precision import Metrics
from diffinst.evaluation.evaluator import Evaluator
from diffinst.evaluation.prediction import check_size
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError
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
        limit = None if split.federated else config.postprocess.max_detections
        self._evaluator = Evaluator(split, limit, config.model.class_names)
        self._model = DiffusionInst(network, config)
        self._drawn: list[tuple[Image.Image, str]] = []
        self.failed: list[str] = []

    def predict(self, records: Sequence[ImageRecord]) -> None:
        """Take some of the images, best as many as go through the network together."""
        limit = self._evaluator.max_detections
        paths = [record.path for record in records]
        each = self._model.predict_each(paths, threshold=0.0, max_detections=limit)
        for record, (_, found) in zip(records, each, strict=True):
            try:
                if isinstance(found, ImageReadError):
                    raise found
                check_size(found, record)
            except ImageReadError as error:
                self.failed.append(str(error))
                continue
            self._evaluator.add(record, found)
            if len(self._drawn) < SHEET_IMAGES:
                drawn = found.above(SHEET_SCORE).plot(record.path)
                self._drawn.append((drawn, record.path.name))

    def metrics(self, processes: int = 1) -> tuple[Metrics, Metrics]:
        """Mask and box metrics over the images of all processes, which have to call it together."""
        evaluator = self._evaluator
        if processes > 1:
            parts: list[Any] = [None] * processes
            torch.distributed.all_gather_object(parts, (evaluator.results, evaluator.image_ids))
            evaluator.results = [result for results, _ in parts for result in results]
            evaluator.image_ids = [image_id for _, ids in parts for image_id in ids]
        return evaluator.compute()

    def save_sheet(self, path: Path) -> None:
        """Draw this process's first images, if there are any."""
        if self._drawn:
            sheet = contact_sheet(self._drawn, columns=3)
            with atomic_path(path) as temporary:
                sheet.save(temporary, format="PNG")
