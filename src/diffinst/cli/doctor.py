"""`diffinst doctor`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffinst.cli.terminal import progress_bar, say

if TYPE_CHECKING:  # they bring numpy and Pillow along, which other commands need not wait for
    from diffinst.datasets.doctor.findings import Finding
    from diffinst.datasets.doctor.summary import Summary

page = Console(highlight=False)  # the report is what the command is for: stdout
MAX_WIDTH = 100
SHOWN_PLACES = 5
STYLES = {"breaks": "bold red", "spoils": "bold yellow", "note": "bold cyan"}
MEANINGS = {
    "breaks": "training stops or cannot start",
    "spoils": "training runs, and the model gets worse",
    "note": "worth knowing",
}


def doctor(
    data: Path,
    /,
    *,
    fix: Path | None = None,
    out: Path = Path("runs/doctor"),
    samples: int = 12,
    json: bool = False,
) -> None:
    """Find what would break or spoil training on a dataset, and repair a copy of it.

    Example: diffinst doctor DATA --fix DATA-repaired

    Looks at every file, entry, image and mask, says what is wrong and what to do, and draws a
    contact sheet: look at it, no program sees all mistakes. Writes OUT/report.json and
    OUT/contact_sheet.png; the dataset stays as it is. Ends with exit code 1 if something would
    break training.

    Parameters
    ----------
    data
        Folder of a dataset (COCO, LVIS or YOLO), or a YOLO data.yaml.
    fix
        New folder for a repaired copy, in COCO layout, images included.
    out
        Where report and contact sheet go.
    samples
        Images on the contact sheet, besides one for each kind of finding.
    json
        Print the report as JSON to stdout instead of text.
    """
    from diffinst.datasets.doctor import repair
    from diffinst.datasets.doctor.examine import examine
    from diffinst.io.atomic import write_json

    if samples < 0:
        raise ValueError(f"--samples {samples}; allowed are numbers from 0")
    if out.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"--out {out} lies in {data}, which stays as it is; name another folder")
    if fix is not None:
        repair.check_free(fix, [data])
    out.mkdir(parents=True, exist_ok=True)  # rather than find out after an hour that it cannot be
    with ExitStack() as bar:
        shown: dict[str, Callable[[int, int], None]] = {}

        def progress(split: str, done: int, total: int) -> None:
            if split not in shown:
                bar.close()  # of the split before
                shown[split] = bar.enter_context(progress_bar(split, shown=not json))
            shown[split](done, total)

        report = examine(data, progress)
    write_json(out / "report.json", report.as_dict())
    from diffinst.cli.contact_sheet import (
        write_sheet,
    )  # brings torch along: not before it is needed

    sheet = write_sheet(report, out / "contact_sheet.png", samples)
    if json:
        print((out / "report.json").read_text(encoding="utf-8"), end="")
    else:
        for line in report.verdicts.items():
            show("{}: {}".format(*line))
        print_summaries(report.summaries)
        for finding in report.findings:
            print_finding(finding)
        print_ending(report.findings)
        by_hand = any(one.severity == "breaks" and one.left for one in report.findings)
        if fix is None and not by_hand and any(one.repair for one in report.findings):
            show(f"A repaired copy: diffinst doctor {data} --fix NEW_FOLDER")
    say(f"report         {out / 'report.json'}" + f"\ncontact sheet  {sheet}" * (sheet is not None))
    if fix is not None:
        with progress_bar("copying", shown=not json) as copied:
            done = repair.write(report, fix, copied)
        say(
            f"repaired copy  {fix}: {done.images[0]} of {done.images[1]} images, "
            f"{done.objects[0]} of {done.objects[1]} objects"
        )
    if report.breaks:
        sys.exit(1)


def print_summaries(summaries: tuple[Summary, ...]) -> None:
    """One table: what can be used, split by split."""
    table = Table(
        title="What can be used for training (sizes: height x width)", title_justify="left"
    )
    table.add_column("")
    for summary in summaries:
        table.add_column(summary.split, justify="right")
    for name, values in _rows(summaries):
        table.add_row(name, *values)
    if summaries:
        page.print(table)


def _rows(summaries: tuple[Summary, ...]) -> list[tuple[str, list[str]]]:
    from diffinst.datasets.doctor.summary import SIDE_STEPS

    sides = [f"objects of {low} to {high} px" for low, high in pairwise((0, *SIDE_STEPS))]
    sides.append(f"objects of {SIDE_STEPS[-1]} px or more")
    return [
        ("images", [str(s.images) for s in summaries]),
        ("objects", [str(s.objects) for s in summaries]),
        ("classes with objects", [f"{s.classes[0]} of {s.classes[1]}" for s in summaries]),
        ("objects an image, median", [f"{s.per_image[0]:g}" for s in summaries]),
        ("objects an image, most", [str(s.per_image[1]) for s in summaries]),
        (
            "object side 5, 50, 95 %",
            [", ".join(f"{side:.0f}" for side in s.sides) + " px" for s in summaries],
        ),
        *((side, [f"{s.side_shares[i]:.0%}" for s in summaries]) for i, side in enumerate(sides)),
        ("smallest image", [_size(s.sizes, 0) for s in summaries]),
        ("most frequent size", [_size(s.sizes, 1) for s in summaries]),
        ("largest image", [_size(s.sizes, 2) for s in summaries]),
    ]


def _size(sizes: tuple[tuple[int, int], ...], index: int) -> str:
    return f"{sizes[index][0]}x{sizes[index][1]}" if sizes else "-"


def print_finding(finding: Finding) -> None:
    """A paragraph: what, where, what to do."""
    unit = finding.unit if finding.count == 1 else plural(finding.unit)
    where = f" in {finding.split}" if finding.split else ""
    heading = Text.assemble(
        (finding.severity.upper(), STYLES[finding.severity]),
        f"  {finding.code}: {finding.count} {unit}{where}",
    )
    page.print()
    page.print(heading, soft_wrap=True)
    body = [finding.what]
    places = [f"- {place}" for place in finding.places[:SHOWN_PLACES] if str(place)]
    body += places
    if places and finding.count > len(places):
        body.append(f"- and {finding.count - len(places)} more")
    body.append(f"What to do: {finding.advice}")
    if finding.repair:
        body.append(f"--fix {finding.repair}.")
    for line in body:
        show(line)


def show(text: str) -> None:
    """Indented lines on stdout; flags and paths stay in one piece."""
    width = min(page.width, MAX_WIDTH)
    lines = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False)
    page.print("\n".join(f"  {line}" for line in lines), markup=False, soft_wrap=True)


def plural(unit: str) -> str:
    """More than one of them.

    Example:
        >>> plural("class"), plural("category"), plural("pair of fields")
        ('classes', 'categories', 'pairs of fields')
    """
    word, of, rest = unit.partition(" of ")
    if word.endswith("y"):
        return f"{word[:-1]}ies{of}{rest}"
    return word + ("es" if word.endswith("s") else "s") + of + rest


def print_ending(findings: tuple[Finding, ...]) -> None:
    """How many of each severity."""
    page.print()
    for severity, meaning in MEANINGS.items():
        count = sum(finding.severity == severity for finding in findings)
        page.print(Text.assemble((f"{severity:<7}", STYLES[severity]), f"{count:>3}  ({meaning})"))
