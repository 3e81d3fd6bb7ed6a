from __future__ import annotations

import json

import pytest

from diffinst.serve.work import MOST_STATES, Object, Work


def some(count: int) -> list[Object]:
    rle = {"size": [1, 1], "counts": "01"}
    return [Object(0, 0, 0.5, [0, 0, 1, 1], 1, rle) for _ in range(count)]  # type: ignore[arg-type]


def begun(count: int) -> Work:
    new = Work().numbered(some(count))
    return Work().become([one.id for one in new], new)


def test_ids_are_never_given_twice() -> None:
    work = begun(3)
    assert work.now == (1, 2, 3)
    later = work.without([3])
    new = later.numbered(some(1))
    assert new[0].id == 4


def test_undo_and_redo_go_back_and_forth_and_a_change_ends_redo() -> None:
    work = begun(2).without([1]).relabelled([2], 1)
    assert work.now == (3,) and work.current[0].label == 1 and work.current[0].kept
    back = work.undone().undone()
    assert back.now == (1, 2) and back.redone().redone().now == (3,)
    assert back.undone().undone().undone().now == ()
    assert back.kept([1]).future == ()
    assert [w.revision for w in (work, back)] == [3, 5]


def test_what_is_undone_or_redone_is_not_accepted() -> None:
    accepted = begun(2).without([1]).approved(0.5)
    assert accepted.accepted and not accepted.undone().accepted
    assert not accepted.undone().redone().accepted
    assert Work().undone() == Work() and accepted.redone() is accepted  # nothing was changed


def test_emptied_work_has_no_way_back() -> None:
    work = begun(2).without([1]).emptied()
    assert (work.now, work.objects, work.undone()) == ((), {}, work)
    assert work.numbered(some(1))[0].id == 3  # ids are not given twice


def test_an_object_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="no object 7"):
        begun(2).without([7])


def test_the_past_is_bounded_and_holds_no_object_without_use() -> None:
    work = begun(1)
    for _ in range(2 * MOST_STATES):
        work = work.relabelled([work.now[0]], 1)
    assert len(work.past) == MOST_STATES and len(work.objects) == MOST_STATES + 1


def test_a_file_gives_back_all_of_it() -> None:
    work = begun(3).without([2]).undone()
    assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work
