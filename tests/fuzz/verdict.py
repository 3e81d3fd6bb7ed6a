"""How a command has to end on malformed input, whatever it was: the rules, in one place."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from diffinst.cli import main

LONGEST = 1500  # characters of a line for a person
_PROGRESS = re.compile(r"(segmenting|evaluating|train|val|copying) .*\d+/(\d+|\?)")
_BOX = re.compile(r"╭─ Error ─+╮\n((?:│.*│\n)+)╰─+╯")  # how cyclopts shows what it refuses
_RESULT = re.compile(r"(report|contact sheet|repaired copy|overlays|masks|results|written:) ")


@dataclass(frozen=True)
class Ended:
    """What a command left behind: its exit code, and the lines it wrote."""

    code: int
    out: str
    err: tuple[str, ...]

    @property
    def error(self) -> str:
        """The one line that says what went wrong; empty after success."""
        lines = [line for line in self.err if not (_PROGRESS.match(line) or _RESULT.match(line))]
        if not self.code:
            assert not [line for line in lines if line.startswith("error")]
            return ""
        assert len(lines) == 1, f"not one line but {len(lines)}"
        assert lines[0].startswith("error: "), "no line that starts with 'error: '"
        return lines[0]


class Command:
    """Runs command lines in this process, and tells how to run a failing case alone.

    Args:
        node: The test's name in pytest.
    """

    def __init__(self, node: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self.monkeypatch = node, monkeypatch

    def __call__(self, *tokens: object, reports: bool = False) -> Ended:
        """Run; whatever leaves the command is a defect.

        Args:
            tokens: The command line.
            reports: What is wrong stands in a report, not in one line.

        Returns:
            What it left behind, checked by `readable`.
        """
        # stderr as Python makes it: what it cannot encode is escaped
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", "", write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", "", write_through=True)
        logged = _Logged()
        code: object = 0
        with self.monkeypatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            patch.setattr(sys, "argv", ["diffinst", *map(str, tokens)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            logging.getLogger().addHandler(logged)
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
            except Exception as error:
                told = f"a traceback ends with {type(error).__name__}: {str(error)[:500]}"
                raise AssertionError(f"{told}{self.alone(tokens)}") from error
            finally:
                logging.getLogger().removeHandler(logged)
        boxless = _BOX.sub(lambda box: "error: " + _joined(box[1]), _text(err))
        lines = [line.rstrip() for line in boxless.split("\n")]
        ended = Ended(int(str(code)), _text(out), tuple(line for line in lines if line))
        try:
            assert ended.code in (0, 1, 2), f"exit code {ended.code}"
            readable(ended.err)
            assert reports or bool(ended.error) == bool(ended.code)
            strange = [w for w in warned if not _ours(w)]
            assert not strange, f"a library warns: {strange[0].category.__name__}: {strange[0]}"
            assert not logged.strange, f"a library logs: {logged.strange[0]}"
        except AssertionError as error:
            raise AssertionError(f"{error}{self.alone(tokens, ended)}") from error
        return ended

    def alone(self, tokens: Sequence[object] = (), ended: Ended | None = None) -> str:
        """How to run this case alone, and what it said."""
        said = "" if ended is None else "\nstderr:\n" + "\n".join(ended.err)[:3000]
        ran = f"\nafter: diffinst {' '.join(map(str, tokens))!r:.1000}" if tokens else ""
        return f"\nrun it alone: python -m pytest -m '' '{self.node}'{ran}{said}"

    def names(self, ended: Ended, *names: object) -> None:
        """An error has to name the file, the field or the value that is at fault."""
        if ended.code and not any(str(name) in ended.error for name in names):
            raise AssertionError(f"none of {names} is named{self.alone((), ended)}")

    def whole(self, folder: Path, *, empty: bool = False) -> None:
        """Nothing half-written lies there, no temporary file, and, after an error, nothing."""
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            try:
                assert not path.name.startswith("."), f"{path} is left behind"
                assert path.is_dir() or not empty, f"{path} was written in spite of the error"
                if path.is_file():
                    _check_whole(path)
            except Exception as error:
                raise AssertionError(f"{path}: {error}{self.alone()}") from error


class _Logged(logging.Handler):
    """Keeps what libraries say through logging."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.strange: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("diffinst"):
            self.strange.append(f"{record.name}: {record.getMessage()}")


def _text(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8")


def _joined(rows: str) -> str:
    return " ".join(row.strip("│ ") for row in rows.splitlines()).strip()


def _ours(one: warnings.WarningMessage) -> bool:
    """Notes on a dataset are warnings of ours; what numpy, Pillow or torch say is not."""
    return type(one.message) is UserWarning and "diffinst" in one.filename


def readable(lines: Collection[str]) -> None:
    """Refuse lines that are no lines for a person."""
    for line in lines:
        assert "Traceback" not in line, "a traceback"
        assert len(line) <= LONGEST, f"a line of {len(line)} characters"
        hidden = [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]
        assert not hidden, f"{hidden[0]!r} would change the terminal"


def _check_whole(path: Path) -> None:
    match path.suffix:
        case ".json":
            json.loads(path.read_text(encoding="utf-8"))
        case ".png":
            with Image.open(path) as image:
                image.load()
        case ".safetensors":
            with safe_open(str(path), framework="pt"):
                pass
