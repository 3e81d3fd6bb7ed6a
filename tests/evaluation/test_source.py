"""Which model was evaluated: its precision counts, not only its files."""

from __future__ import annotations

import hashlib
import json

from diffinst.evaluation.source import Source


def test_another_precision_is_another_model(source: Source) -> None:
    exact, plain = (Source.load(source.folder, precision=p) for p in ("fp32", None))
    half = Source.load(source.folder, precision="bf16")
    assert exact.digest == plain.digest == half.digest
    assert exact.config_digest == plain.config_digest != half.config_digest
    assert (plain.model.precision, half.model.precision) == (None, "bf16")


def test_stores_of_earlier_versions_stay_valid(source: Source) -> None:
    """They hashed four parts of the configuration and knew no precision."""
    values = source.model.config.to_dict()
    parts = {k: values[k] for k in ("model", "preprocess", "sampler", "postprocess")}
    before = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert source.config_digest == before
