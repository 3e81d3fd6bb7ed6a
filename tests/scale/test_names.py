"""Does every file name come back from its text?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffinst.scale.names import as_listed, printable


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a/ü b.png", "a/ü b.png"),
        ("a\udcff.png", r"a\xff.png"),
        (r"a\xff.png", r"a\x5cxff.png"),
        (r"a\x5cxff.png", r"a\x5cx5cxff.png"),
        (r"C:\xylophone\a.png", r"C:\xylophone\a.png"),
    ],
)
def test_names_by_hand(path: str, text: str) -> None:
    assert printable(path) == text and as_listed(text) == path


@given(st.binary(max_size=12) | st.text("\\x5cf", max_size=12).map(str.encode))
def test_bytes_come_back(name: bytes) -> None:
    path = name.decode("utf-8", "surrogateescape")
    text = printable(path)
    assert as_listed(text) == path
    text.encode("utf-8")
