"""Where scalars of a run go: CSV, TensorBoard, W&B, MLflow, trackio."""

from __future__ import annotations

import csv
import hashlib
import importlib
import logging
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from diffinst.config import Config

logger = logging.getLogger(__name__)
PROJECT = "diffinst"
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def make_loggers(config: Config, out: Path) -> list[Logger]:
    """One logger per name in `train.loggers`; files lie below `out`.

    Raises:
        ValueError: A logger's package is not installed; says what to install.
    """
    names = tuple(dict.fromkeys(config.train.loggers))
    for name in names:  # before any of them makes a file
        _check_installed(name)
    return [_make(name, config, out) for name in names]


def _check_installed(name: str) -> None:
    if name in PACKAGES:
        try:
            importlib.import_module(PACKAGES[name])
        except ImportError as error:
            raise ValueError(
                f"train.loggers names {name}, which is not installed ({error}): "
                f"pip install {PACKAGES[name]}, or omit it"
            ) from error


def _make(name: str, config: Config, out: Path) -> Logger:
    match name:
        case "csv":
            return RunLog(out)
        case "tensorboard":
            return TensorBoardLogger(str(out), name="logs", version="")
        case "wandb":
            from pytorch_lightning.loggers import WandbLogger

            return WandbLogger(
                name=out.name, save_dir=str(out), project=PROJECT, id=run_id(out), resume="allow"
            )
        case "mlflow":
            from pytorch_lightning.loggers import MLFlowLogger

            return MLFlowLogger(PROJECT, run_name=out.name)
        case "trackio":
            return TrackioLogger(PROJECT, out.name, config.to_dict())
        case _:
            raise ValueError(f"no logger '{name}'")


def run_id(out: Path) -> str:
    """A name that a resumed run has again and another run folder has not."""
    mark = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:8]
    return f"{out.name}-{mark}"


class TrackioLogger(Logger):
    """Scalars to trackio (a local dashboard: `trackio show`).

    Args:
        project: Its project.
        run: Name of the run; a resumed run goes on under the same name.
        config: Saved with the run.
    """

    def __init__(self, project: str, run: str, config: dict[str, Any]) -> None:
        super().__init__()
        self._project, self._run, self._config = project, run, config
        self._experiment: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str:
        """The run."""
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One row of scalars."""
        if self._experiment is None:
            trackio = importlib.import_module("trackio")
            self._experiment = trackio.init(
                project=self._project, name=self._run, config=self._config, resume="allow"
            )
        self._experiment.log(dict(metrics), step=step)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object
    ) -> None:
        """The configuration is handed over at the start."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None


class RunLog(CSVLogger):
    """Scalars in metrics.csv; a resumed run goes on in the same file."""

    def __init__(self, out: Path) -> None:
        super().__init__(str(out), name="", version="")
        self._experiment = _KeptRows(self.log_dir)


def _rows(file: Path) -> list[dict[str, float]]:
    """The rows of an earlier start, without those that a killed run or a full disk left torn."""
    text = file.read_text("utf-8", errors="replace").replace("\0", "")
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows = []
    for row in csv.DictReader(whole):
        try:
            if None in row or None in row.values():  # more or fewer fields than the first row names
                raise ValueError
            values = {k: float(v) for k, v in row.items() if v}
            rows.append({**values, "step": int(row["step"])})
        except (KeyError, ValueError):
            logger.warning("%s: a torn row is dropped", file)
    return rows


class _KeptRows(ExperimentWriter):
    """Keeps the rows of an earlier start up to the first step that is logged anew."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._file = Path(self.metrics_file_path)
        self._old: list[dict[str, float]] = []
        if self._file.is_file():
            self._old = _rows(self._file)

    def _check_log_dir_exists(self) -> None:
        """Lightning would delete the file here."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Add a row; the first one replaces old rows from its step on."""
        if self._old and step is not None:
            self.metrics = [row for row in self._old if row["step"] < step]
            self._old = []
            self._file.unlink(missing_ok=True)
            self.save()
        super().log_metrics(metrics_dict, step)
