"""Does a wrong command line end with one line that names the flag, and nothing done?"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from mutate import Case, cases
from verdict import Command

from diffinst.cli import main

VALID: dict[str, list[str]] = {  # absent.png, no/data and ./no-model are not there
    "predict": ["absent.png", "--model=./no-model", "--out=out", "--steps=2", "--threshold=0.3",
                "--page=1", "--times=3", "--seed=1", "--stretch=full", "--precision=fp32"],
    "train": ["--data=no/data", "--preset=tiny", "--out=out", "--train.lr=0.1", "--devices=1",
              "--train.milestones=3", "--model.filters.layers=2", "--overfit=0"],
    "eval": ["--data=no/data", "--model=./no-model", "--out=out", "--steps=2", "--limit=3",
             "--sweep-steps=2", "--processes=1", "--worst=2", "--proposals=30"],
    "doctor": ["no/data", "--out=out", "--samples=3", "--fix=fixed"],
    "benchmark": ["--model=./no-model", "--size=64x64"],
    "convert": ["no/file.pth", "--out=out"],
    "info": ["./no-model"],
}  # fmt: skip
VALUES = (
    "abc", "-1", "0", "1.5", "1e400", "nan", "inf", "1" * 23, "1" * 60, "²", "é", "None", "[]",
    "{}", "--", "true", "[bold]b[/]", "../x", "a" * 40, "1,2", "0x10", "\udcff",
)  # fmt: skip


def mutated(case: Case) -> list[str]:
    rng = case.rng()
    name = rng.choice(sorted(VALID))
    tokens = rng.sample(VALID[name], rng.randint(0, len(VALID[name])))
    for _ in range(rng.randint(1, 2)):
        tokens = _changed(tokens, name, rng)
    return [name, *tokens]


def _changed(tokens: list[str], name: str, rng: random.Random) -> list[str]:
    whole = tokens or VALID[name]
    at = rng.randrange(len(whole))
    flag, equals, value = whole[at].partition("=")
    match rng.randrange(7):
        case 0:  # a slip of the keyboard
            cut = rng.randrange(max(1, len(flag)))
            new = [flag[:cut] + flag[cut + 1 :] + equals + value]
        case 1:
            new = [flag]
        case 2:
            new = [whole[at], whole[at]]
        case 3:
            new = [whole[at], rng.choice(VALUES)]
        case 4:
            new = [flag, rng.choice(VALUES)]
        case _:
            new = [f"{flag}={rng.choice(VALUES)}" if equals else rng.choice(VALUES)]
    return [*whole[:at], *new, *whole[at + 1 :]]


@pytest.mark.parametrize("case", cases("line", 80, 820))
def test_a_wrong_line_is_refused(case: Case, command: Command, tmp_path: Path) -> None:
    tokens = mutated(case)
    ended = command(*tokens)
    assert ended.code, f"it ended well{command.alone(tokens, ended)}"
    given = {part for token in tokens for part in (token, *token.split("=", 1)) if part.strip()}
    shown = {part.encode("utf-8", "backslashreplace").decode() for part in given}
    command.names(ended, "--", "parameter", *shown, *map(repr, tokens))
    command.whole(tmp_path, empty=True)


@pytest.mark.xfail(strict=True, reason="names of no or of odd characters are shown as they are")
@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["info", "a\nb"], r"a\nb"),
        (["info", "a\x1b[31mb"], r"a\x1b[31mb"),
        (["train", "--data=no/data", "--preset=a\x1b[31mb"], r"a\x1b[31mb"),
        (["info", ""], "''"),
        (["convert", " ", "--out=out"], "' '"),
    ],
    ids=repr,
)
def test_odd_names_are_quoted(line: list[str], named: str, command: Command) -> None:
    command.names(command(*line), named)


@pytest.mark.xfail(strict=True, reason="the parser's errors are a box of several lines")
@pytest.mark.parametrize("flag", ["--steps=abc", "--stps=2", "--steps"])
def test_errors_of_the_parser_are_one_line(
    flag: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["diffinst", "predict", "absent.png", flag])
    with pytest.raises(SystemExit):
        main()
    assert len(capfd.readouterr().err.splitlines()) == 1
