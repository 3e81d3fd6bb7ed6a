"""`diffinst benchmark`: every combination once, a table, a file; nonsense is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffinst.acceleration import optimize
from diffinst.cli.benchmark import benchmark


def test_every_combination_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize, "bf16_pays", lambda device: False)  # so `auto` is fp32
    out = tmp_path / "speed.json"
    benchmark(
        "tiny",
        size="64x96",
        steps=(1, 2),
        proposals=(8,),
        precision=("fp32", "auto"),
        rounds=2,
        memory=False,
        out=out,
    )
    found = json.loads(out.read_text())
    assert [m["workload"]["steps"] for m in found["measurements"]] == [1, 2]
    assert {"machine", "limits", "model"} <= found.keys()
    printed = capsys.readouterr().out
    assert "seconds (median)" in printed and "decoder: dynamic convolution" in printed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "800"}, "--size 800: give HEIGHTxWIDTH"),
        ({"size": "0x5"}, "--size 0x5"),
        ({"rounds": 0}, "--rounds 0: give a number from 1"),
        ({"device": "tpu"}, "--device tpu: not usable here"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark("tiny", **wrong)  # type: ignore[arg-type]
