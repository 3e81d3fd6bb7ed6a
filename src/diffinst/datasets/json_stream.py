"""Reads the lists of a large JSON object entry by entry, whatever their order, in little memory.

Entries that lie whole in what was read, and are as they should be, are decoded together by msgspec.
Whatever it refuses goes through the standard library's decoder one by one: that takes NaN, so that
the entry that holds it can be named, and any entry is broken or sound for it alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from diffinst.datasets.problems import DatasetError
from diffinst.io.regular import check_regular

_CHUNK = 1 << 19  # characters
_SHORT = 1 << 10  # characters: a few entries
_MARGIN = 64  # characters at the end of what was read that may be the first half of something
_SPACE = " \t\n\r"
_NEXT = re.compile(r"\s*,\s*\{")  # what lies between two entries, behind the end of the first
_decode = json.JSONDecoder().raw_decode


def entries(
    file: Path,
    tables: Collection[str],
    shape: str,
    rest: dict[str, object] | None = None,
    decoders: Mapping[str, msgspec.json.Decoder[Any]] | None = None,
) -> Iterator[tuple[str, int, object]]:
    """Go through the lists of these names; a table that is there but empty gives nothing.

    Args:
        file: UTF-8, with or without a byte order mark.
        tables: Keys of the outermost object.
        shape: What such a file looks like, for errors.
        rest: Gets the other keys; where None, they are passed over.
        decoders: Of lists of sound entries, by table; what they make is given in place of
            dictionaries.

    Yields:
        Table, position in it (-1, with None, once at its beginning), entry.

    Raises:
        DatasetError: The file cannot be read, is broken, or is no object with such lists.
    """
    try:
        check_regular(file)
        with file.open(encoding="utf-8-sig") as text:
            yield from _Reader(file, text, decoders or {}).entries(tables, shape, rest)
    except OSError as error:
        problem = error.strerror or error
        message = f"{file}: cannot be read ({problem}); check the file"
        raise DatasetError(message, "broken-file") from error
    except UnicodeDecodeError as error:
        message = f"{file}: broken JSON (no UTF-8: {error}); copy or export it again"
        raise DatasetError(message, "broken-file") from error


class _Reader:
    """What was read of the text and not yet used: `text[at:]`."""

    def __init__(
        self, file: Path, source: TextIO, decoders: Mapping[str, msgspec.json.Decoder[Any]]
    ) -> None:
        self.file, self.source, self.decoders = file, source, decoders
        self.span = _CHUNK  # characters in which sound entries are looked for
        self.text, self.at, self.ended = "", 0, False
        self.line, self.column = 1, 0  # of text[0]

    def entries(
        self, tables: Collection[str], shape: str, rest: dict[str, object] | None
    ) -> Iterator[tuple[str, int, object]]:
        """See above."""
        if self.peek() != "{":
            self.value()
            message = f"{self.file}: Input should be an object; {shape}"
            raise DatasetError(message, "missing-table")
        self.at += 1
        for _ in self.until("}"):
            key = self.value()
            if not isinstance(key, str):
                raise self.broken("a key is no text", self.at)
            self.skip(":")
            listed = self.peek() == "["
            if key in tables and not listed:
                message = f"top-level '{key}': Input should be a valid array"
                raise DatasetError(f"{self.file}: {message}; {shape}", "missing-table")
            if key in tables:
                yield key, -1, None
                yield from self.table(key)
            elif rest is not None or not listed:
                value = self.value()
                if rest is not None:
                    rest[key] = value
            else:
                for _ in self.table(key):
                    pass
        if self.peek():
            raise self.broken("more text after the end", self.at)

    def table(self, key: str) -> Iterator[tuple[str, int, object]]:
        """Go through one list."""
        self.at += 1
        count = 0
        for _ in self.until("]"):
            for entry in self.sound(key) or (self.value(),):
                yield key, count, entry
                count += 1

    def sound(self, key: str) -> Sequence[object]:
        """Take the entries that are whole in what was read, if all are as they should be."""
        decoder = self.decoders.get(key)
        if decoder is None:
            return ()
        end = min(len(self.text), self.at + self.span)
        while (end := self.text.rfind("}", self.at, end)) >= 0:
            if _NEXT.match(self.text, end + 1):
                break
        try:
            found: Sequence[object] = decoder.decode(f"[{self.text[self.at : end + 1]}]")
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            self.span = max(self.span // 8, _SHORT)  # one is taken by itself, then fewer are tried
            return ()
        self.span = min(2 * self.span, _CHUNK)
        self.at = end + 1 if found else self.at
        return found

    def until(self, end: str) -> Iterator[int]:
        """Count the entries up to the end, each to be taken by the caller."""
        position = 0
        while self.peek() != end:
            if position:
                self.skip(",")
                if self.peek() == end:
                    raise self.broken("trailing comma", self.at)
            yield position
            position += 1
        self.at += 1

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def skip(self, wanted: str) -> None:
        """Go over one character."""
        if self.peek() != wanted:
            raise self.broken(f"expected '{wanted}'", self.at)
        self.at += 1

    def value(self) -> object:
        """Take the next value."""
        self.peek()
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Broken, or cut where reading stopped? A text that does not end tells its start.
                cut = error.pos > len(self.text) - _MARGIN or error.msg.startswith("Unterminated")
                if not (cut and self.more()):
                    raise self.broken(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.broken(str(error), self.at) from error
            else:
                # A number at the end of what was read may go on behind it.
                if end <= len(self.text) - _MARGIN or not self.more():
                    self.at = end
                    return value

    def more(self) -> bool:
        """Read on, as much again as a value needs that is not yet whole; False at the end."""
        left = len(self.text) - self.at
        new = "" if self.ended else self.source.read(max(_CHUNK, left))
        self.ended = not new
        if new:
            self.line, self.column = _moved(self.line, self.column, self.text[: self.at])
            self.text, self.at = self.text[self.at :] + new, 0
        return bool(new)

    def broken(self, what: str, at: int) -> DatasetError:
        """The error for a place in what was read."""
        what = what.removesuffix(" at")
        if self.ended and at >= len(self.text.rstrip(_SPACE)):
            what, at = "EOF while parsing a value", len(self.text)
        line, column = _moved(self.line, self.column, self.text[:at])
        where = f"{what} at line {line} column {column}"
        message = f"{self.file}: broken JSON ({where}); copy or export it again"
        return DatasetError(message, "broken-file")


def _moved(line: int, column: int, text: str) -> tuple[int, int]:
    breaks = text.count("\n")
    return line + breaks, len(text) - text.rfind("\n") - 1 if breaks else column + len(text)
