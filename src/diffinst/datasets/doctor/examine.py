"""What is wrong with a dataset folder? All checks in order, and what they found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffinst.datasets import layouts
from diffinst.datasets.doctor import disk, objects
from diffinst.datasets.doctor.classes import compare_classes, unite_classes
from diffinst.datasets.doctor.findings import Finding, Notebook
from diffinst.datasets.doctor.summary import Summary, advise, summarise
from diffinst.datasets.doctor.tables import Tables, read_labels, read_tables
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.load import load_split
from diffinst.datasets.problems import DatasetError, Place

NEEDED = ("train", "val")


@dataclass(frozen=True, eq=False)
class Report:
    """What was found.

    Attributes:
        root: The folder.
        findings: Worst first.
        summaries: One per split that could be read.
        verdicts: By split, what loading it for training says.
        splits: What was read, with everything put right that can be; see `repair`.
    """

    root: Path
    findings: tuple[Finding, ...]
    summaries: tuple[Summary, ...]
    verdicts: dict[str, str]
    splits: tuple[Tables, ...]

    @property
    def breaks(self) -> bool:
        """Whether something would stop training."""
        return any(finding.severity == "breaks" for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "root": str(self.root),
            "breaks": self.breaks,
            "findings": [finding.as_dict() for finding in self.findings],
            "summaries": [summary.as_dict() for summary in self.summaries],
            "verdicts": self.verdicts,
        }


def examine(
    root: str | Path, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Report:
    """Examine a dataset: its files, every entry, every image, every mask. Nothing is written.

    Images are opened a few at a time; the annotations are kept in memory.

    Args:
        root: The folder, or a YOLO data.yaml.
        progress: Called with (split, images looked at, images in all).

    Raises:
        DatasetError: There is no such folder, or it may not be read.

    Example:
        >>> from diffinst.datasets.synthetic import make_shapes
        >>> examine(make_shapes("shapes")).breaks
        False
    """
    root = Path(root)
    notes = Notebook()
    found = dict(sorted(layouts.find_splits(root).items(), key=lambda item: _order(item[0])))
    for name in NEEDED:
        if name not in found:
            _note_missing(root, name, notes.of(name))
    splits = []
    for name, files in found.items():
        tables = _read(files, notes.of(name))
        if tables is not None:
            disk.look(tables, partial(progress, name))
            objects.inspect(tables)
            splits.append(tables)
    disk.compare_images(splits)
    disk.find_unnamed(splits)
    compare_classes(splits, notes)
    summaries = [summarise(tables) for tables in splits]
    for tables, summary in zip(splits, summaries, strict=True):
        advise(tables, summary)
    verdicts = {name: _verdict(root, name, notes.of(name)) for name in found}
    unite_classes(splits)
    return Report(root, notes.findings(), tuple(summaries), verdicts, tuple(splits))


def _order(name: str) -> tuple[int, str]:
    return NEEDED.index(name) if name in NEEDED else len(NEEDED), name


def _note_missing(root: Path, name: str, notes: Notebook) -> None:
    try:
        layouts.find_split(root, name)
    except DatasetError as error:
        reason = str(error)
    else:
        return
    annotated = reason.startswith("no images for split")
    code = "no-val" if name == "val" and not annotated else "missing-split"
    notes.note(code, Place(detail=reason))


def _read(files: SplitFiles, notes: Notebook) -> Tables | None:
    match files.format:
        case "coco" | "lvis" | "cvat" | "labelme":
            return read_tables(files, notes)
        case "yolo":
            return read_labels(files, notes)


def _verdict(root: Path, name: str, notes: Notebook) -> str:
    """What the reader that training uses says; its warnings are findings here already."""
    if notes.has("wild-coordinates"):
        return "was not loaded: drawing its polygons would take all memory"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            split = load_split(root, name)
    except (ValueError, OSError) as error:
        if not notes.breaks():
            notes.note("refused", Place(detail=str(error)))
        return f"is refused: {error}"
    count = sum(len(record.annotations) for record in split.records)
    return f"loads: {len(split.records)} images, {count} objects, {len(split.classes)} classes"
