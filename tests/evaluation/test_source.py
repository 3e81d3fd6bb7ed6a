"""Which model was evaluated: its precision counts, not only its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffinst import DiffusionInst
from diffinst.evaluation.source import Source


def test_another_precision_is_another_model(source: Source) -> None:
    assert source.folder is not None
    exact, plain = (Source.load(source.folder, precision=p) for p in ("fp32", None))
    half = Source.load(source.folder, precision="bf16")
    assert exact.digest == plain.digest == half.digest
    assert exact.config_digest == plain.config_digest != half.config_digest
    assert (plain.model.precision, half.model.precision) == (None, "bf16")


def test_a_compiled_model_is_the_same_model(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results differ by rounding alone."""
    assert source.folder is not None
    monkeypatch.setattr("diffinst.acceleration.compile.what_prevents", lambda device: None)
    fast = Source.load(source.folder, compile_network=True)
    assert fast.compile_network and fast.model.precision == "fp32"
    assert fast.model.network.fpn._compiled_call_impl is not None
    assert fast.config_digest == source.config_digest


def test_what_stays_float32_under_bf16_counts(tmp_path: Path) -> None:
    whole = Source.load(DiffusionInst.from_preset("tiny").save_pretrained(tmp_path))
    fast = Source.load(tmp_path, precision="bf16")
    mixed = replace(fast, model=whole.model.optimize("bf16"))
    mixed.model.network.backbone.float()
    assert mixed.config_digest != fast.config_digest


def test_stores_of_earlier_versions_stay_valid(source: Source) -> None:
    """They hashed four parts of the configuration and knew no precision."""
    values = source.model.config.to_dict()
    parts = {k: values[k] for k in ("model", "preprocess", "sampler", "postprocess")}
    before = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert source.config_digest == before


def test_a_loaded_model_is_told_by_its_weights(source: Source, tmp_path: Path) -> None:
    first, second, other = (DiffusionInst.from_preset("tiny", seed=seed) for seed in (0, 0, 1))
    assert Source.of(first).digest == Source.of(second).digest != Source.of(other).digest
    assert Source.of(first).folder is None and Source.of(first).name == "model"
    assert Source.of(source) is source and source.folder is not None
    named = Source.of(source.folder, "cpu")
    assert named.digest == source.digest and named.model.precision == "fp32"
    assert source.origin[0] == source.folder
    with pytest.raises(ValueError, match="give its name or folder in the place of a loaded model"):
        _ = Source.of(first).origin
