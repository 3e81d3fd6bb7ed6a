"""Compares the classes of the splits, and gives all splits the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.tables import Entry, Tables
from diffinst.datasets.problems import Place


def compare_classes(splits: list[Tables], notes: Notebook) -> None:
    """Note where a split's classes are not those of "train", and which have no objects."""
    used = {tables.name: Counter(_used(tables)) for tables in splits}
    train = next((tables for tables in splits if tables.name == "train"), None)
    for tables in splits:
        if train is None or tables is train:
            continue
        ids = {name: number for number, name in train.classes.items()}
        for number, name in tables.classes.items():
            if name not in ids:
                detail = f"'{name}' is not in 'train'"
                tables.notes.note("classes-differ", Place(detail=detail))
            elif ids[name] != number:
                detail = f"'{name}' has id {number}, in 'train' {ids[name]}"
                tables.notes.note("category-ids-differ", Place(detail=detail))
            if used[tables.name][name] and not used["train"][name]:
                count = used[tables.name][name]
                detail = f"'{name}': {count} object{'s' * (count != 1)}"
                tables.notes.note("class-not-in-train", Place(detail=detail))
        for name in ids.keys() - set(tables.classes.values()):
            tables.notes.note("classes-differ", Place(detail=f"'{name}' is missing here"))
    everywhere = sum(used.values(), Counter())
    for name in {name: None for tables in splits for name in tables.classes.values()}:
        if not everywhere[name]:
            notes.note("unused-class", Place(detail=f"'{name}'"))


def _used(tables: Tables) -> list[str]:
    return [
        tables.classes[thing.category_id] for image in tables.kept for thing in image.kept_things
    ]


def unite_classes(splits: list[Tables]) -> None:
    """Give all splits the same classes: ids of the first split that has a class, if still free."""
    numbers: dict[str, int] = {}
    described: dict[str, Entry] = {}
    for tables in splits:
        for number, name in tables.classes.items():
            if name not in numbers:
                taken = set(numbers.values())
                numbers[name] = number if number not in taken else max(taken) + 1
                described[name] = tables.class_entries[number]
    for tables in splits:
        new = {number: numbers[name] for number, name in tables.classes.items()}
        tables.renumbered = {old: new[i] for old, i in tables.renumbered.items()}
        for image in tables.images:
            for thing in image.things:
                thing.category_id = new.get(thing.category_id, thing.category_id)
        ordered = sorted(numbers.items(), key=lambda item: item[1])
        tables.classes = {number: name for name, number in ordered}
        tables.class_entries = {number: described[name] for name, number in ordered}


def known_classes(listed: object, renumbered: Mapping[int, int]) -> list[int]:
    """What of a list are ids of classes."""
    if not isinstance(listed, list):
        return []
    return [i for i in listed if type(i) is int and i in renumbered]
