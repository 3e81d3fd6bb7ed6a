"""Are the options of a prediction one checked value, spelled once?"""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from diffinst.config import Config, ConfigError, OptionFields, Options


def test_the_keywords_are_the_fields() -> None:
    assert set(get_type_hints(OptionFields)) == set(Options.model_fields)


def test_what_is_not_given_is_the_models_own() -> None:
    config = Config().updated(sampler={"steps": 3}, postprocess={"threshold": 0.25})
    own = Options.of(config)
    assert (own.steps, own.threshold, own.seed, own.proposals) == (3, 0.25, 0, 500)
    asked = Options.of(config, proposals=7, threshold=None, seed=9)
    assert (asked.steps, asked.threshold, asked.seed, asked.proposals) == (3, 0.25, 9, 7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps: .*greater than or equal to 1.*got 0"),
        ({"steps": 1001}, "steps is 1001; allowed are 1 to 1000"),
        ({"proposals": 2.5}, "proposals: .*2.5"),
        ({"threshold": float("nan")}, "threshold: .*nan"),
        ({"seed": 2**63}, "seed: .*less than"),
        ({"seed": -1}, "seed: .*got -1"),
        ({"steps": True}, "steps: .*true and false are no numbers"),
        ({"step": 2}, "unknown field 'step'; did you mean 'steps'"),
        ({"times": (5, 5)}, "times is 5, 5; give at least one time, each lower than"),
        ({"times": (1000, 3)}, "times is 1000, 3; .* from 999 to 0"),
        ({"times": ()}, "times is empty; "),
        ({"times": (3, -1)}, r"^times\.1: .* greater than or equal to 0 \(got -1\)$"),
        ({"times": (), "kind": "search"}, "times is empty; "),
    ],
)
def test_what_is_out_of_range_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Options.of(Config(), **given)
    assert "\n" not in str(caught.value)


def test_options_made_by_hand_are_checked_alike() -> None:
    assert Options(steps=3).steps == 3
    with pytest.raises(ConfigError, match=r"^steps: .*\(got 0\)$"):
        Options(steps=0)


def test_times_say_how_many_steps() -> None:
    assert Options.of(Config(), times=(999, 20, 0)).steps == 3


def test_auto_is_a_cap_and_a_rule() -> None:
    config = Config().updated(sampler={"most_steps": 5})
    auto = Options.of(config, steps="auto")
    assert (auto.steps, auto.until_settled) == (5, True)
    assert Options.of(config, steps="auto", most_steps=3).steps == 3
    assert not Options.of(config, steps=4).until_settled
    with pytest.raises(ConfigError, match=r"steps: .*often"):
        Options.of(config, steps="often")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "free"),
    [
        ({}, ("steps", "proposals")),
        ({"steps": 4}, ("proposals",)),
        ({"times": (9, 3)}, ("proposals",)),
        ({"proposals": 9}, ("steps",)),
        ({"steps": "auto", "proposals": 9}, ("steps",)),
    ],
)
def test_a_time_limit_chooses_what_is_not_given(
    given: dict[str, Any], free: tuple[str, ...]
) -> None:
    assert Options.of(Config(), seconds=0.5, **given).free == free
    assert Options.of(Config(), **given).free == ()
