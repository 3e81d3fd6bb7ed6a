"""Is the most doubtful image first, for a reason that is said, and nothing half written?"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffinst.config import ConfigError
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.rank import (
    Ranked,
    Ranking,
    doubt_of,
    is_sheet,
    rank,
    why,
    write_ranking,
    write_sheet,
)
from diffinst.io.images import ImageReadError
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def found(*stability: float) -> Instances:
    n = len(stability)
    return Instances(
        boxes=torch.tensor([[1.0, 1.0, 3.0, 3.0]] * n).view(-1, 4),
        scores=torch.full((n,), 0.9),
        labels=torch.zeros(n, dtype=torch.int64),
        mask_crops=CroppedMasks.from_dense(torch.ones(n, 4, 6, dtype=torch.bool)),
        image_size=(4, 6),
        class_names=("cat",),
        stability=torch.tensor(stability, dtype=torch.float32),
    )


def test_doubt_is_what_stability_and_score_lack_to_one() -> None:
    assert doubt_of(found(1.0, 0.75, 0.25)) == pytest.approx(0.4)  # scores 0.9: .1, .325, .775
    assert doubt_of(found(1.0, 1.0)) == pytest.approx(0.1)
    assert doubt_of(found()) == 0
    with pytest.raises(ValueError, match="one noise says nothing of doubt; predict with noises=8"):
        doubt_of(Instances.empty((4, 6), ("cat",)))


@pytest.mark.parametrize(
    ("stability", "said"),
    [
        ((), "nothing found in 8 runs"),
        ((1.0, 1.0), "all 8 runs found the same objects"),
        ((1.0, 0.75), "1 of 2 objects not found by all 8 runs"),
        ((1.0, 0.75, 0.5), "2 of 3 objects not found by all 8 runs, 1 by half of them or fewer"),
    ],
)
def test_why_is_said_in_words(stability: tuple[float, ...], said: str) -> None:
    assert why(found(*stability), 8) == said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{name}.png")
    (place / "broken.png").write_bytes((place / "a.png").read_bytes()[:50])
    return place


def test_a_folder_is_ranked_by_doubt(tiny: DiffusionInst, folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    options = {"proposals": 12, "threshold": 0.0}
    ranking = rank(
        tiny,
        [folder],
        show=2,
        noises=2,
        progress=lambda done, total: calls.append((done, total)),
        **options,  # type: ignore[arg-type]
    )
    *rows, last = ranking.rows
    assert calls == [(i, 4) for i in (1, 2, 3, 4)]
    assert last.path == folder / "broken.png" and last.doubt is None and ranking.failed == (last,)
    doubts = [row.doubt for row in rows if row.doubt is not None]
    assert len(doubts) == 3 and doubts == sorted(doubts, reverse=True)
    for row in rows:
        alone = tiny.predict(row.path, noises=2, **options)  # type: ignore[call-overload]
        assert row.doubt == doubt_of(alone) and row.objects == len(alone)
    assert [one.path for one in ranking.first] == [row.path for row in rows[:2]]
    write_ranking(ranking, tmp_path / "rank.csv")
    with open(tmp_path / "rank.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == [str(row.path) for row in ranking.rows]
    assert table[-1]["doubt"] == "" and table[-1]["why"].startswith("could not be read: ")
    assert str(folder) not in table[-1]["why"]
    assert write_sheet(ranking, tmp_path / "rank.png")
    with Image.open(tmp_path / "rank.png") as sheet:
        assert sheet.width > 800  # two tiles of 400 beside each other


def test_relative_paths_get_a_sheet_and_stay_as_they_were_given(
    tiny: DiffusionInst, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    given = Path(folder.name)
    ranking = rank(tiny, [given], show=1, noises=2, proposals=8)
    assert ranking.rows[0].path.parent == given
    assert write_sheet(ranking, tmp_path / "rank.png")


def test_what_is_gone_by_now_is_not_drawn(tmp_path: Path) -> None:
    gone = replace(found(0.5), path=tmp_path / "gone.png")
    ranking = Ranking((Ranked(tmp_path / "gone.png", 0.5, 1, "why"),), (gone,), 8)
    assert not write_sheet(ranking, tmp_path / "sheet.png")


def test_what_is_done_is_handed_on_when_the_run_ends_early(
    tiny: DiffusionInst, folder: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    got: list[Ranking] = []
    with pytest.raises(KeyboardInterrupt):
        rank(tiny, [folder], show=1, noises=2, proposals=8, progress=stop, done=got.append)
    (ranking,) = got
    assert {row.path.name for row in ranking.rows} == {"a.png", "b.png"}
    assert [found.path for found in ranking.first] == [ranking.rows[0].path]


def test_own_sheets_are_not_ranked_and_go_where_none_is_drawn(
    tiny: DiffusionInst, folder: Path, tmp_path: Path
) -> None:
    pixels = (folder / "a.png").read_bytes()
    for name in ("a.png", "my_sheet.png"):
        (tmp_path / name).write_bytes(pixels)
    options = {"noises": 2, "proposals": 8}
    ranking = rank(tiny, [tmp_path], show=1, **options)  # type: ignore[arg-type]
    sheet = tmp_path / "rank_sheet.png"
    assert write_sheet(ranking, sheet) and is_sheet(sheet)
    again = rank(tiny, [tmp_path], **options)  # type: ignore[arg-type]
    assert {row.path.name for row in again.rows} == {"a.png", "my_sheet.png"}
    with pytest.raises(ImageReadError, match=r"rank_sheet\.png: is the sheet of a ranking"):
        rank(tiny, [sheet], **options)  # type: ignore[arg-type]
    assert not write_sheet(again, sheet) and not sheet.exists()  # show is 0
    assert not write_sheet(again, tmp_path / "my_sheet.png")
    assert (tmp_path / "my_sheet.png").read_bytes() == pixels


def test_nothing_to_draw_is_no_sheet(tmp_path: Path) -> None:
    broken = Ranked(tmp_path / "a.png", None, None, "no image")
    assert not write_sheet(Ranking((broken,), (), 8), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(("noises", "said"), [(1, "noises is 1, but doubt"), (0, "noises: ")])
def test_how_many_runs_is_checked(
    tiny: DiffusionInst, folder: Path, noises: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        rank(tiny, [folder], noises=noises)
