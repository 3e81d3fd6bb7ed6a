"""What files of strangers say changes no terminal and fills no screen."""

import pytest

from diffinst.datasets.problems import DatasetError
from diffinst.io.image_error import ImageReadError
from diffinst.io.one_line import one_line


@pytest.mark.parametrize("error", [DatasetError, ImageReadError])
def test_errors_are_one_printable_line(error: type[ValueError]) -> None:
    assert str(error("a\nb\x1b[31m\u202e\udcff.png é")) == r"a\nb\x1b[31m\u202e\udcff.png é"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = one_line(f"data.yaml: {'x' * 5000}; correct it")
    assert text.startswith("data.yaml: xxx") and text.endswith("xxx; correct it")
    assert " ... " in text and len(text) == 1205
    assert one_line("x" * 1200) == "x" * 1200
