"""Does every logger get the run's scalars, and does one that is not installed say so?"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diffinst.config import Config
from diffinst.training.loggers import RunLog, TrackioLogger, make_loggers

Settings = Callable[..., Config]
Runner = Callable[..., Path]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_lie_in_the_run_folder(quick: Settings, tmp_path: Path) -> None:
    loggers = make_loggers(quick(loggers=["tensorboard", "csv", "csv"]), tmp_path)
    assert len(loggers) == 2
    for logger in loggers:
        logger.log_metrics({"loss": 0.25}, 3)
        logger.finalize("success")
    assert [(r["step"], r["loss"]) for r in rows(tmp_path)] == [("3", "0.25")]
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.csv", "logs"}
    assert make_loggers(quick(loggers=[]), tmp_path) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_what_is_not_installed_is_named(
    name: str, quick: Settings, trained: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not
    wrong = rf"train\.loggers names {name}, which is not installed .*: pip install {name}, or omit"
    with pytest.raises(ValueError, match=wrong):
        trained(quick(loggers=["csv", name]), tmp_path / "out")
    assert not (tmp_path / "out").exists()  # said before anything is begun


class FakeTrackio(ModuleType):
    """Keeps what trackio's `init` and its runs are told."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.started: list[dict[str, object]] = []
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.finished = 0

    def init(self, **arguments: object) -> FakeTrackio:
        self.started.append(arguments)
        return self

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, metrics))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_gets_rows_with_their_steps(trackio: FakeTrackio) -> None:
    logger = TrackioLogger("mine", "first", {"seed": 0})
    assert (logger.name, logger.version) == ("mine", "first")
    logger.finalize("success")
    assert not trackio.started and not trackio.finished  # nothing logged, nothing begun
    logger.log_metrics({"loss": 2.0}, 0)
    logger.log_metrics({"loss": 1.0, "lr": 0.5}, 7)
    start = {"project": "mine", "name": "first", "config": {"seed": 0}, "resume": "allow"}
    assert trackio.started == [start]
    assert trackio.rows == [(0, {"loss": 2.0}), (7, {"loss": 1.0, "lr": 0.5})]
    logger.finalize("success")
    logger.finalize("success")
    assert [trackio.finished] == [1]
    logger.log_metrics({"AP": 0.5}, 9)  # evaluated after training: the same run goes on
    assert trackio.started == [start, start]


def test_a_run_is_told_to_trackio(
    trackio: FakeTrackio, quick: Settings, trained: Runner, tmp_path: Path
) -> None:
    chosen = quick(loggers=["trackio"])
    trained(chosen, tmp_path / "mine")
    assert {(s["project"], s["name"], s["resume"]) for s in trackio.started} == {
        ("diffinst", "mine", "allow")
    }
    config = Config.from_dict(trackio.started[0]["config"])
    assert config.train == chosen.train and config.model.names == ("disc", "box", "triangle")
    assert [step for step, row in trackio.rows if "loss/total" in row] == [0, 1]
    assert any("val/mask/AP" in row for _, row in trackio.rows)
    assert any(key.startswith("lr") for _, row in trackio.rows for key in row)
    assert trackio.finished == len(trackio.started)
    assert not (tmp_path / "mine" / "metrics.csv").exists()


def test_a_log_keeps_its_rows_up_to_where_it_goes_on(tmp_path: Path) -> None:
    first = RunLog(tmp_path)
    for step in range(4):
        first.log_metrics({"loss": step / 3}, step)
    first.save()
    second = RunLog(tmp_path)
    assert len(rows(tmp_path)) == 4  # opening changes nothing
    second.log_metrics({"loss": 20.0, "rate": 0.5}, 2)
    second.log_metrics({"loss": 30.0}, 3)
    second.save()
    assert [(r["step"], r["loss"], r["rate"]) for r in rows(tmp_path)] == [
        ("0", "0.0", ""),
        ("1", str(1 / 3), ""),
        ("2", "20.0", "0.5"),
        ("3", "30.0", ""),
    ]


@pytest.mark.parametrize(
    "torn", ["2,0.4", "2,0.4,5", "\0\0\0", "x,0.5\r\n2,0.25\r\n", '2,"0.', "2,0.\xff"]
)
def test_a_torn_row_is_dropped(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.csv").write_text(f"step,loss\r\n0,2.0\r\n1,1.0\r\n{torn}", "latin-1")
    log = RunLog(tmp_path)
    log.log_metrics({"loss": 20.0}, 9)
    log.save()
    kept = [(r["step"], r["loss"]) for r in rows(tmp_path)]
    assert kept[:2] == [("0", "2.0"), ("1", "1.0")] and kept[-1] == ("9", "20.0")
    assert len(kept) == (4 if "0.25" in torn else 3)
