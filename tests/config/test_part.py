"""Do numbers end where no computer could serve them?"""

from __future__ import annotations

import pytest

from diffinst.config import Config, ConfigError, preset_names


@pytest.mark.parametrize(
    ("part", "fields", "named"),
    [
        ("train", {"iterations": 10**20}, "train.iterations"),
        ("train", {"proposals": 10**23}, "train.proposals"),
        ("train", {"workers": 100_000}, "train.workers"),
        ("train", {"seed": -1}, "train.seed"),
        ("sampler", {"proposals": 0}, "sampler.proposals"),
        ("preprocess", {"short_side": 70_000}, "preprocess.short_side"),
        ("augment", {"crop_range": [10, 10**6]}, "augment.crop_range.1"),
        ("model", {"num_classes": 10**6}, "model.num_classes"),
        ("model", {"decoder": {"width": 10**6}}, "model.decoder.width"),
        ("model", {"decoder": {"stages": 65}}, "model.decoder.stages"),
    ],
)
def test_the_field_is_named(part: str, fields: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"{named}: Input should be .*than.* \(got"):
        Config.from_dict({part: fields})


@pytest.mark.parametrize("name", preset_names())
def test_presets_lie_within(name: str) -> None:
    Config.from_preset(name)
