"""Is a device that is not there, or a number that is none, refused by name?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffinst.cli.options import height_and_width, usable_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_the_default_and_every_one_has_a_number() -> None:
    assert usable_device(None) == "cuda"
    assert [usable_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "tpu", ""])
def test_others_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match=f"^--device {name}: .*cpu, cuda, cuda:0, cuda:1$"):
        usable_device(name)


def test_without_a_gpu_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device(None) == "cpu"
    with pytest.raises(ValueError, match=r"there is cpu$"):
        usable_device("cuda:0")


@pytest.mark.parametrize(
    "size",
    ["", "8", "0x8", "8x0", "8x-8", "²x²", "8x8x8", "8.0x8", "65536x8", f"8x{10**30}", " 8x8"],
)
def test_a_size_is_two_numbers(size: str) -> None:
    with pytest.raises(
        ValueError, match=f"^--size {size}: give HEIGHTxWIDTH in pixels, 1 to 65535"
    ):
        height_and_width(size)
    assert height_and_width("65535x1") == (65535, 1)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --data x --devices 0", 'value "0" for --devices. Must be >= 1.'),
        ("train --data x --nodes 0", 'value "0" for --nodes. Must be >= 1.'),
        (
            "train --data x --train.iterations 1.5",
            '--train.iterations: unable to convert "1.5" into',
        ),
        (
            "train --data x --train.milestones 2.5",
            '--train.milestones: unable to convert "2.5" into',
        ),
        (f"train --data x --train.seed {10**20}", "Input should be less than 4294967296"),
        ("train --data x --train.workers 100000", "Input should be less than or equal to 256"),
        (
            "train --data x --model.decoder.width 1000000",
            "Input should be less than or equal to 8192",
        ),
        ("predict x --steps 1.5", '--steps: unable to convert "1.5" into int'),
        (
            f"predict x --proposals {10**23}",
            "proposals: Input should be less than or equal to 100000",
        ),
        (f"predict x --seed {10**20}", "seed: Input should be less than 9223372036854775808"),
        ("eval --data x --model y --steps 1.5", '--steps: unable to convert "1.5" into int'),
        (f"eval --data x --model y --limit {10**20}", "for --limit. Must be <= 1000000000."),
        ("eval --data x --model y --worst -1", "for --worst. Must be >= 0."),
        (f"eval --data x --model y --seed {10**20}", "for --seed. Must be < 9223372036854775808."),
        ("eval --data x --model y --sweep-steps 1 0", "for --sweep-steps. Must be >= 1."),
    ],
)
def test_numbers_out_of_range_are_one_message(
    diffinst: Callable[..., tuple[int, str, str]], tmp_path: Path, line: str, said: str
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    code, out, err = diffinst(*line.replace("predict x", f"predict {tmp_path}").split())
    message = " ".join((out + err).replace("│", " ").split())
    assert code != 0 and said in message and "Traceback" not in message
