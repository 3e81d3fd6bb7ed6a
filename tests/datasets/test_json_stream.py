"""Lists come out entry by entry, however the text is cut; breaks are named with their place."""

import json
import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from diffinst.datasets import json_stream
from diffinst.datasets.json_stream import entries
from diffinst.datasets.segmentation import DatasetError


class Sound(msgspec.Struct):
    x: int


def read(path: Path, content: str | bytes, *tables: str) -> list[tuple[str, int, object]]:
    file = path / "file.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(entries(file, tables or ("a", "b"), "it looks so"))


def test_tables_in_any_order_among_other_content(tmp_path: Path) -> None:
    text = '{"info": {"a": [9]}, "b": [{"x": "]"}, 2.5], "rest": [1, [2, "["]], "n": null, "a": []}'
    assert read(tmp_path, text) == [
        ("b", -1, None),
        ("b", 0, {"x": "]"}),
        ("b", 1, 2.5),
        ("a", -1, None),
    ]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1000])
def test_where_reading_stops_plays_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    values = [-1.5e-10, 12345678901234567890, 'ä\\" \n', True, None, {"k": [[0.1, 2]]}, [], ""]
    for indent in (None, 1):
        text = json.dumps({"c": values, "a": values, "b": [7]}, indent=indent)
        found = [entry for _, position, entry in read(tmp_path, text) if position >= 0]
        assert found == [*values, 7]


@pytest.mark.parametrize("chunk", [1, 9, 100, 1000, 100_000])
@pytest.mark.parametrize("odd", [None, {"x": "1"}, {"x": float("nan")}, {"y": "}, {"}, [5], 7])
def test_sound_entries_come_out_in_their_places_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, odd: object
) -> None:
    """Those that the decoder takes as what it makes, the others as they are."""
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    listed: list[object] = [
        {"x": i, "name": '"},{', "in": [{"y": 1}, {"y": 2}]} for i in range(300)
    ]
    listed[150:150] = [] if odd is None else [odd]
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"a": listed, "b": [{"x": 1}, {"x": 2}], "rest": [1, 2]}))
    rest: dict[str, object] = {}
    found = entries(file, ("a", "b"), "", rest, {"a": msgspec.json.Decoder(list[Sound])})
    tables = [(table, place, entry) for table, place, entry in found if place >= 0]
    assert [place for table, place, _ in tables if table == "a"] == list(range(len(listed)))
    for (_, _, entry), expected in zip(tables, listed, strict=False):
        if isinstance(entry, Sound):
            assert expected == {"x": entry.x, "name": '"},{', "in": [{"y": 1}, {"y": 2}]}
        else:
            assert repr(entry) == repr(expected)  # NaN is not equal to itself
    assert tables[-2:] == [("b", 0, {"x": 1}), ("b", 1, {"x": 2})]
    assert rest == {"rest": [1, 2]}
    if chunk > 200 and odd is None:
        assert sum(isinstance(entry, Sound) for *_, entry in tables) > 100


def test_nan_is_read_so_that_its_place_can_be_named(tmp_path: Path) -> None:
    ((_, _, _), (_, _, value)) = read(tmp_path, '{"a": [-Infinity]}')
    assert value == float("-inf")


def test_byte_order_mark_and_space(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf \n{ "a" : [ 1 , 2 ] } \n') == [
        ("a", -1, None),
        ("a", 0, 1),
        ("a", 1, 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("  \n ", "EOF while parsing a value at line 2 column 1"),
        ('{"a": [1, 2', "EOF while parsing a value at line 1 column 11"),
        ('{"a": [\n{"x": 1}, {"y', "Unterminated string starting at line 2 column 11"),
        ('{"a": [1 2]}', "expected ',' at line 1 column 9"),
        ('{"a": [1,]}', "trailing comma at line 1 column 9"),
        ('{"a": [1],}', "trailing comma at line 1 column 10"),
        ('{"a" [1]}', "expected ':' at line 1 column 5"),
        ('{"a": [x]}', "Expecting value at line 1 column 7"),
        ('{"a": [{"x": 1,}]}', "at line 1 column 1[45]"),
        ("{1: [2]}", "a key is no text at line 1 column 2"),
        ('{"a": []} {', "more text after the end at line 1 column 10"),
        (b'{"a": ["\xff"]}', "no UTF-8: .*can't decode byte 0xff"),
        ('{"a": [' + "[" * 100_000, "recursion"),
    ],
)
def test_breaks_are_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"file\.json: broken JSON \(.*{message}.*\); copy or"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["[]", "5", '"text"'])
def test_something_else_than_an_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(DatasetError, match="should be an object; it looks so"):
        read(tmp_path, text)
    with pytest.raises(DatasetError, match="'b': Input should be a valid array; it looks so"):
        read(tmp_path, '{"a": [], "b": {}}')


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: cannot be read \(No such file"):
        list(entries(tmp_path / "none.json", ("a",), ""))
    with pytest.raises(DatasetError, match=r"cannot be read \(Is a directory\)"):
        list(entries(tmp_path, ("a",), ""))


def test_an_early_break_is_found_without_reading_on(tmp_path: Path) -> None:
    """8 MB after the break: more than two chunks of them are never held."""
    file = tmp_path / "file.json"
    file.write_text('{"a": [oops, ' + "1, " * 2_700_000 + "1]}")
    tracemalloc.start()
    with pytest.raises(DatasetError, match="Expecting value at line 1 column 7"):
        list(entries(file, ("a",), ""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("place", ["entry", "ignored", "other table"])
def test_lists_too_deep_are_broken(tmp_path: Path, place: str) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    texts = {"entry": f'{{"a": [{{"x": {deep}}}', "ignored": f'{{"a": [{{"x": 1, "y": {deep}}}'}
    text = texts.get(place, f'{{"c": [{deep}')
    file = tmp_path / "file.json"
    file.write_text(text + ', {"x": 1}, {"x": 2}]}')
    decoders = {"a": msgspec.json.Decoder(list[Sound])}
    with pytest.raises(DatasetError, match=r"broken JSON \(maximum recursion depth .* line 1 col"):
        list(entries(file, ("a",), "it looks so", None, decoders))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file.json")
    with pytest.raises(DatasetError, match=r"file\.json: cannot be read \(it is a pipe or a dev"):
        list(entries(tmp_path / "file.json", ("a",), "it looks so"))
