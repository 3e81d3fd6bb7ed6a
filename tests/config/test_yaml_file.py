"""Files of strangers give plain values, or one line that says what is wrong; never a long wait."""

from pathlib import Path

import pytest

from diffinst.config.yaml_file import YamlError, read_yaml


def file_of(folder: Path, text: str) -> Path:
    file = folder / "some.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("\ufeffnames: [cat, dog]\nnc: 2", {"names": ["cat", "dog"], "nc": 2}),
        (
            "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}",
            {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}},
        ),
    ],
)
def test_values(tmp_path: Path, text: str, content: object) -> None:
    assert read_yaml(file_of(tmp_path, text)) == content


def bomb(first: str, join: str) -> str:
    """Ten aliases of ten aliases of ...: 10^12 values in 13 lines."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} " + join.format(", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 13)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb("[x]", "[{}]"), "more than 1000000 values, aliases written out, from line 7 on"),
        (bomb("{x: 1}", "{{<<: [{}]}}"), "more than 1000000 values"),
        ("a: &x [1, *x]", "a value holds itself, line 1"),
        ("[" * 50_000, "lists within lists, too deep to be read"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor .*, line 1"),
        ("a: !mine b", "could not determine a constructor for the tag '!mine', line 1, column 4"),
        ("a: [1\nb: 2", "expected ',' or ']', .*, line 2, column 2"),
        ("a: 2024-13-45", "a value is not what its form or its tag says"),
        ("a: !!int b", "a value is not what"),
        ("a: !!bool b", "a value is not what"),
        ("a: !!timestamp b", "a value is not what"),
        ("a: " + "9" * 5000, "a number of 5000 digits, line 1"),
        ("a: 0x" + "f" * 50_000, "a number of 50002 digits"),
        ("a: \x01", "special characters are not allowed"),
        ("? [a]: b", "found unhashable key, line 1"),
        ("a: *b", "found undefined alias 'b', line 1"),
        ("a: 1\n---\nb: 2", "but found another document, line 2"),
    ],
)
def test_what_is_no_plain_yaml_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(YamlError, match=message) as caught:
        read_yaml(file_of(tmp_path, text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(b"a: \xff")
    with pytest.raises(YamlError, match="can't decode byte 0xff"):
        read_yaml(tmp_path / "some.yaml")
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")
