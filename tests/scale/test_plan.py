"""Is every image in the plan once, with an id and a shard that depend on nothing else?"""

from __future__ import annotations

from pathlib import Path

import pytest

from diffinst.io.image_error import ImageReadError
from diffinst.scale.inputs import Entry
from diffinst.scale.place import place
from diffinst.scale.plan import (
    GROUP,
    Plan,
    digest,
    image_id,
    image_seed,
    usual_shard_size,
    write_plan,
)


def entries(count: int) -> list[Entry]:
    return [Entry(f"{i}.png", i, 10 * i) for i in range(count)]


def test_an_id_hangs_on_path_size_and_time() -> None:
    one = Entry("a.png", 10, 5)
    others = [Entry("b.png", 10, 5), Entry("a.png", 11, 5), Entry("a.png", 10, 6)]
    assert image_id(one) == image_id(Entry("a.png", 10, 5))
    assert len({image_id(entry) for entry in [one, *others]}) == 4
    assert len(image_id(Entry("\udcff.png", None, None))) == 32  # a name that is no UTF-8


def test_a_seed_hangs_on_the_run_and_the_image() -> None:
    seeds = {image_seed(seed, id_) for seed in (0, 1) for id_ in ("a", "b")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert image_seed(0, "a") == image_seed(0, "a")


def test_shards_cut_the_plan(tmp_path: Path) -> None:
    where = place(tmp_path)
    count = 2 * GROUP + 5  # a shard of 3000 begins in one row group and ends in the next
    planned = write_plan(where, entries(count))
    assert (planned.images, planned.repeated) == (count, 0)
    plan = Plan(where, 3000)
    assert (plan.images, plan.shards) == (8197, 3)
    assert [plan.size(k) for k in range(3)] == [3000, 3000, 2197]
    listed = [item for k in range(3) for item in plan.shard(k)]
    assert [item.path for item in listed] == [f"{i}.png" for i in range(count)]
    assert listed[7].bytes == 7 and listed[7].id == image_id(Entry("7.png", 7, 70))
    assert planned.digest == digest(where)


def test_an_image_in_twice_is_done_once(tmp_path: Path) -> None:
    twice = [*entries(4), Entry("1.png", 1, 10), Entry("1.png", 1, 10), Entry("4.png", None, None)]
    planned = write_plan(place(tmp_path), twice)
    assert (planned.images, planned.repeated) == (5, 2)
    plan = Plan(place(tmp_path), 9)
    assert [item.path for item in plan.shard(0)] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert planned.digest == digest(place(tmp_path))
    write_plan(place(tmp_path / "b"), [*entries(4), Entry("4.png", None, None)])
    assert digest(place(tmp_path / "b")) == planned.digest


def test_nothing_is_left_of_an_empty_plan(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="there is no image in what was given"):
        write_plan(place(tmp_path / "out"), [])
    assert list((tmp_path / "out").iterdir()) == []


def test_names_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    write_plan(place(tmp_path), [Entry(f"a{sign}.png", 1, 1) for sign in "\udcff\udcfe"])
    assert [item.path for item in Plan(place(tmp_path), 2).shard(0)] == [
        r"a\xff.png",
        r"a\xfe.png",
    ]


def test_a_path_that_changed_between_two_listings_is_done_once(tmp_path: Path) -> None:
    listed = [Entry("s3://b/a.png", 7, 1), Entry("b.png", 1, 1), Entry("s3://b/a.png", None, None)]
    planned = write_plan(place(tmp_path), listed)
    assert (planned.images, planned.repeated) == (2, 1)
    first, _ = Plan(place(tmp_path), 2).shard(0)
    assert (first.path, first.bytes) == ("s3://b/a.png", 7)  # as it was listed first


def test_the_size_of_shards_hangs_on_the_number_of_images() -> None:
    # 64 shards, of 32 images at least and 4,096 at most
    sizes = [usual_shard_size(n) for n in (1, 2048, 6400, 1_000_000)]
    assert sizes == [32, 32, 100, 4096]
