"""Is a run told from another one, and is what differs named?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffinst.scale.fingerprint import FILE, AnotherRun, Run, load, loaded, save
from diffinst.scale.place import place

RUN = Run(
    weights="w1",
    config="c1",
    device="cpu",
    precision="fp32",
    options={"threshold": 0.5, "times": None},
    reading={"page": None},
    seed=0,
    classes=("cat", "dog"),
    asked=("/in",),
    root="/in",
    images=7,
    shard_size=4,
    plan="p1",
)


def test_a_run_is_remembered(tmp_path: Path) -> None:
    assert load(place(tmp_path)) is None
    save(place(tmp_path), RUN)
    assert load(place(tmp_path)) == loaded(place(tmp_path)) == RUN


def test_what_results_hang_on_is_in_the_fingerprint() -> None:
    changes: list[dict[str, object]] = [
        {"weights": "w2"}, {"config": "c2"}, {"device": "cuda"}, {"precision": "bf16"},
        {"options": {"threshold": 0.6, "times": None}}, {"reading": {"page": 1}}, {"seed": 1},
        {"shard_size": 5}, {"plan": "p2"}, {"version": "0"}, {"format": 2},
    ]  # fmt: skip
    others = {replace(RUN, **change).fingerprint for change in changes}  # type: ignore[arg-type]
    assert len(others) == len(changes) and RUN.fingerprint not in others
    assert replace(RUN, root="/moved", asked=("/moved",)).fingerprint == RUN.fingerprint


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    where = place(tmp_path)
    fresh = replace(RUN, images=0, shard_size=0, plan="")
    RUN.check(fresh, where)
    changed = replace(fresh, weights="w2", options={"threshold": 0.6, "times": None})
    said = r"holds another run \(threshold was 0\.5, is 0\.6; weights was w1, is w2\); choose"
    with pytest.raises(AnotherRun, match=said):
        RUN.check(changed, where)
    with pytest.raises(AnotherRun, match="asked was /in, is /on"):
        RUN.check(replace(fresh, asked=("/on",)), where)
    with pytest.raises(AnotherRun, match="shard_size was 4, is 9"):
        RUN.check(replace(fresh, shard_size=9), where)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weights": 1, "classes": [], "asked": []}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(AnotherRun, match=r"run\.json: is damaged, or of another version"):
        load(place(tmp_path))


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(AnotherRun, match=r"holds no run\.json; name the --out of"):
        loaded(place(tmp_path / "nix"))
