"""Which model was evaluated: its precision counts, not only its files."""

from __future__ import annotations

from diffinst.evaluation.source import Source


def test_another_precision_is_another_model(source: Source) -> None:
    exact, plain = (Source.load(source.folder, precision=p) for p in ("fp32", None))
    half = Source.load(source.folder, precision="bf16")
    assert exact.digest == plain.digest == half.digest
    assert exact.config_digest == plain.config_digest != half.config_digest
    assert (plain.model.precision, half.model.precision) == (None, "bf16")
