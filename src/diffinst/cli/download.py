"""`diffinst download`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.terminal import progress_bar, say

if TYPE_CHECKING:
    from diffinst.download.sources import Step


def download(
    name: Literal["coco", "lvis", "nuclei"],
    /,
    *,
    out: Path | None = None,
    only: Literal["train", "val", "test"] | None = None,
    mirror: Annotated[str | None, Parameter(env_var="DIFFINST_MIRROR")] = None,
    keep: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Fetch a public dataset into a folder that train and eval take as --data.

    Example: diffinst download nuclei --out datasets/nuclei

    Says first what it will fetch, under which licence, and how much room that needs. Start it
    again after an interruption: it goes on from there.

    Parameters
    ----------
    name
        coco (2017), lvis (v1, with COCO's images) or nuclei (BBBC038, 2018 Data Science Bowl).
    out
        The folder; default: datasets/NAME. LVIS uses COCO's images in OUT/../coco, if they are
        there. Archives fetched by other means may be put into OUT/archives.
    only
        This split alone; default: train and val. test (coco alone) has no annotations.
    mirror
        Address to fetch from in place of the publishers' hosts, http://HOST/... or https://.
    keep
        Keep the archives in OUT/archives after unpacking.
    dry_run
        Say what would be fetched, and stop.
    """
    from diffinst.download.sources import ARCHIVES, plan
    from diffinst.io.atomic import remove_unfinished
    from diffinst.io.disk import check_space, free_space, readable
    from diffinst.io.lock import alone_in

    out = out or Path("datasets") / name
    needs = plan(name, out, only=only, mirror=mirror)
    say(needs.describe())
    room = needs.room(keep=keep)
    say(
        f"to fetch: {readable(needs.to_fetch)}; needs up to {readable(room)} in {out}, "
        f"free are {readable(free_space(out))}"
    )
    if dry_run:
        return
    check_space(out, room, f"{name} (fetched and unpacked)")
    with alone_in(out):
        for folder in (out / ARCHIVES, out / "annotations"):
            remove_unfinished(folder)
        for step in plan(name, out, only=only, mirror=mirror).steps:
            _fetch(step)
            _unpack(step, out)
            if not keep:
                step.path.unlink()
                with contextlib.suppress(OSError):  # other archives are in it
                    (out / ARCHIVES).rmdir()
    after = {
        "val": f"eval --data {out} --model MODEL",
        "test": f"predict {out / 'test2017'} --model MODEL",
    }
    say(f"{name}: {out}\nnext: diffinst {after.get(only or 'train', f'train --data {out}')}")


def _fetch(step: Step) -> None:
    from diffinst.download.fetch import fetch
    from diffinst.download.partial import checksum_of
    from diffinst.io.disk import readable

    archive = step.archive
    size = None if archive.checksum is None else archive.size
    with progress_bar(f"fetching {archive.name}", in_bytes=True) as advance:
        fetch(step.url, step.path, checksum=archive.checksum, size=size, progress=advance)
    if archive.checksum is None:
        with progress_bar(f"checksum of {archive.name}", in_bytes=True) as advance:
            given = checksum_of(step.path, "sha256", advance)
        say(
            f"{archive.name}: {readable(step.path.stat().st_size)}, {given}; no published checksum "
            "is known, unpacking checks its own CRCs"
        )


def _unpack(step: Step, out: Path) -> None:
    from diffinst.download import nuclei
    from diffinst.download.archive import unpack

    for part in step.parts:
        in_bytes = part.member is not None
        with progress_bar(f"unpacking {part.targets[0]}", in_bytes=in_bytes) as advance:
            if part.member is None:
                nuclei.convert(step.path, out, splits=part.splits, progress=advance)
            else:
                (target,) = part.targets
                unpack(step.path, out / target, member=part.member, progress=advance)
