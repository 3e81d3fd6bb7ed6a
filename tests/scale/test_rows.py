"""Do rows come back from a part as they went in, and is a torn part told from a whole one?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from diffinst.scale.messages import Instance, Ready, Row, answer
from diffinst.scale.place import place
from diffinst.scale.rows import TornPart, name_of, read_part, write_part

FOUND = Instance(1, 0.75, (1.0, 2.0, 3.5, 4.0), "0120", {"area": 3.0, "b": 0.5})
ROWS = [
    Row("a" * 32, "a.png", 10, 4, 6, None, [FOUND, FOUND]),
    Row("b" * 32, "b.png", None, None, None, "b.png: the file is empty"),
    Row("c" * 32, "s3://c/ü.png", 3, 4, 6),
]


def test_rows_come_back(tmp_path: Path) -> None:
    write_part(place(tmp_path), 3, ROWS, "f")
    assert list(read_part(place(tmp_path), 3, "f")) == ROWS


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    other = msgspec.structs.replace(FOUND, extras={"b": 0.5, "area": 3.0})
    again = [msgspec.structs.replace(ROWS[0], instances=[other, other]), *ROWS[1:]]
    for folder, rows in (("x", ROWS), ("y", again)):
        write_part(place(tmp_path / folder), 0, rows, "f")
    files = [(tmp_path / folder / name_of(0)).read_bytes() for folder in "xy"]
    assert files[0] == files[1]


def test_a_part_of_another_run_or_shard(tmp_path: Path) -> None:
    write_part(place(tmp_path), 0, ROWS, "f")
    with pytest.raises(TornPart, match=r"part-000000\.parquet: belongs to another run"):
        list(read_part(place(tmp_path), 0, "g"))
    (tmp_path / name_of(0)).rename(tmp_path / name_of(1))
    with pytest.raises(TornPart, match=r"part-000001\.parquet: holds another shard's rows"):
        list(read_part(place(tmp_path), 1, "f"))


def test_every_torn_byte_of_the_data_is_seen(tmp_path: Path) -> None:
    write_part(place(tmp_path), 0, ROWS, "f")
    file = tmp_path / name_of(0)
    whole = file.read_bytes()
    for end in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(TornPart, match="is torn or damaged"):
            list(read_part(place(tmp_path), 0, "f"))
    at = whole.index(b"a.png")
    file.write_bytes(whole[:at] + b"A" + whole[at + 1 :])
    with pytest.raises(TornPart, match="is torn or damaged"):
        list(read_part(place(tmp_path), 0, "f"))


def test_messages_come_back() -> None:
    for message in (*ROWS, Ready(4)):
        assert answer(msgspec.msgpack.encode(message)) == message


def test_an_outage_is_not_written_as_errors(tmp_path: Path) -> None:
    gone = [Row(name, f"{name}.png", error=f"{name}.png: gone", fetched=False) for name in "ab"]
    said = r"part-000000\.parquet: is not written, .* none of its 2 images .*\(a\.png: gone\)"
    with pytest.raises(OSError, match=said):
        write_part(place(tmp_path), 0, gone, "f")
    assert place(tmp_path).names("parts") == set()
    write_part(place(tmp_path), 0, gone[:1], "f")  # one may be gone for good
    write_part(place(tmp_path), 1, [gone[0], Row("c", "c.png", error="c.png: torn")], "f")
    assert len(place(tmp_path).names("parts")) == 2
