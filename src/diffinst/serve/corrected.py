"""The images that a person accepted, as a dataset: which are trained on, which are held out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffinst.serve.exports import write_coco
from diffinst.serve.objects import instances_of
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About, Sessions
from diffinst.serve.tiles import is_large
from diffinst.serve.window import Window
from diffinst.serve.work import Object

LEAST = 5  # images: 3 to train on, 2 held out
HELD_OUT = 0.25  # of the images


@dataclass(frozen=True)
class Corrected:
    """An accepted image with the objects that were shown when it was accepted."""

    about: About
    objects: list[Object]


def corrected(sessions: Sessions, session: str | None, models: Collection[str]) -> list[Corrected]:
    """A session's accepted images, in the order in which they came.

    Args:
        sessions: Where they lie.
        session: Its id.
        models: Names of the models whose classes are meant; images of others do not count.
    """
    found = []
    for about, work in sessions.works(session):
        unasked = not work.model and not work.now  # a person says that nothing is there
        if work.accepted and (work.model in models or unasked):
            found.append(Corrected(about, work.shown(work.least)))
    return found


def cut(
    images: Sequence[Corrected], trained_on: Collection[str], held_out: Collection[str]
) -> tuple[list[Corrected], list[Corrected]]:
    """What to train on, and what to hold out: a quarter of the images, rounded up.

    An image that an earlier training was scored on is held out again, and one that it saw is not:
    else a model could be scored on what it learned from.

    Args:
        images: At least `LEAST`.
        trained_on: Ids of images that earlier trainings saw.
        held_out: Ids of those that they held out.

    Raises:
        Refused: Too few images, none that is new to hold out, or none with objects on one side.
    """
    if len(images) < LEAST:
        raise Refused(
            409, f"training needs at least {LEAST} accepted images with the classes of this model, "
            f"and here are {len(images)}; correct more, and accept each (A)"
        )  # fmt: skip
    due = math.ceil(HELD_OUT * len(images))
    # Those with objects first, then by their ids, which are random.
    order = sorted(images, key=lambda one: (not one.objects, one.about.id))
    held = [one for one in order if one.about.id in held_out]
    new = [one for one in order if one.about.id not in {*held_out, *trained_on}]
    held += new[: max(0, due - len(held))]
    rest = [one for one in images if one not in held]
    if not any(one.objects for one in held):
        raise Refused(
            409, "no image with objects is left to hold out, on which no earlier training learned; "
            f"accept {max(1, due)} further ones"
        )  # fmt: skip
    if not any(one.objects for one in rest):
        raise Refused(409, "no object is left to train on; accept more images with objects")
    return rest, held


def write_dataset(
    folder: Path,
    sessions: Sessions,
    session: str | None,
    splits: dict[str, list[Corrected]],
    names: tuple[str, ...],
    *,
    in_parts: bool = False,
) -> None:
    """Write a COCO dataset: annotations/instances_S.json and S/ID.png for each split S.

    Args:
        folder: Is made.
        sessions: Where the images lie.
        session: Whose.
        splits: The images of each.
        names: The classes.
        in_parts: Cut large images into S/ID-Y-X.png, as models look at them; what a cut goes
            through is an object on either side.
    """
    for split, images in splits.items():
        (folder / split).mkdir(parents=True)
        listed = []
        for one in images:
            found = instances_of(one.objects, one.about.size, names)
            if in_parts and is_large(one.about):
                pixels = sessions.pixels(session, one.about.id)
                for window in Window.grid(one.about.size):
                    file = f"{one.about.id}-{window.y}-{window.x}.png"
                    Image.fromarray(window.of(pixels)).save(folder / split / file)
                    listed.append((file, window.cut(found)))
            else:
                file = f"{one.about.id}.png"
                shutil.copyfile(sessions.file(session, one.about.id), folder / split / file)
                listed.append((file, found))
        write_coco(folder / "annotations" / f"instances_{split}.json", listed, names)
