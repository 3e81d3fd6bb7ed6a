"""Does `diffinst rank` say which image to label next, and what it cannot read?"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_table_and_a_sheet(diffinst: Run, model: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rank.csv"
    flags = ("--model", model, "--proposals", 8, "--threshold", 0, "--out", out)
    code, text, err = diffinst("rank", shapes / "val", "--noises", 2, *flags)
    assert code == 0 and text == ""
    assert str(out) in err and str(out.with_name("rank_sheet.png")) in err
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and list(rows[0]) == ["path", "doubt", "objects", "why"]
    assert [float(row["doubt"]) for row in rows] == sorted(
        (float(row["doubt"]) for row in rows), reverse=True
    )
    assert {path.name for path in out.parent.iterdir()} == {"rank.csv", "rank_sheet.png"}
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    code, _, err = diffinst("rank", shapes / "val", broken, "--noises", 2, "--sheet", 0, *flags)
    assert code == 1 and "1 images could not be read; see the end of the table" in err
    assert {path.name for path in out.parent.iterdir()} == {"rank.csv"}  # no sheet of other images
    assert "could not be read: " in out.read_text().splitlines()[-1]


def test_no_image_is_replaced(diffinst: Run, model: Path, shapes: Path, tmp_path: Path) -> None:
    pixels = next((shapes / "val").glob("*.png")).read_bytes()
    for name in ("a.png", "b_sheet.png"):
        (tmp_path / name).write_bytes(pixels)
    flags = ("--model", model, "--proposals", 8, "--noises", 2, "--out")
    code, _, err = diffinst("rank", tmp_path, *flags, tmp_path / "b.csv")
    assert code == 1 and "b_sheet.png: is no sheet of an earlier ranking" in one_line(err)
    assert not (tmp_path / "b.csv").exists()
    for _ in range(2):
        code, _, err = diffinst("rank", tmp_path, *flags, tmp_path / "a.csv")
        assert code == 0
        with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
            names = {Path(row["path"]).name for row in csv.DictReader(file)}
        assert names == {"a.png", "b_sheet.png"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b_sheet.png").read_bytes() == pixels


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--noises", 1), "noises is 1, but doubt is how far runs differ; give 2 or more"),
        (("--noises", 0), "noises: "),
        (("--out", "rank.txt"), "--out rank.txt: the ranking is a table; name a .csv file"),
    ],
)
def test_bad_flags_are_one_line(
    diffinst: Run, model: Path, shapes: Path, flags: tuple[object, ...], said: str
) -> None:
    code, _, err = diffinst("rank", shapes / "val", "--model", model, *flags)
    assert code != 0 and said in one_line(err)


def test_predict_and_eval_take_noises(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    flags = ("--model", model, "--proposals", 8, "--noises", 2)
    image = next((shapes / "val").glob("*.png"))
    code, _, _ = diffinst("predict", image, "--out", tmp_path / "p", "--threshold", 0, *flags)
    assert code == 0 and '"stability": ' in (tmp_path / "p" / "results.json").read_text()
    code, _, _ = diffinst(
        "eval", "--data", shapes, "--limit", 1, "--out", tmp_path / "e", "--worst", 0, *flags
    )
    assert code == 0 and '"noises": 2' in (tmp_path / "e" / "settings.json").read_text()
    assert '"stability":' in (tmp_path / "e" / "results.json").read_text()
    code, _, err = diffinst("eval", "--data", shapes, "--model", model, "--noises", 0)
    assert code != 0 and "noises" in err
