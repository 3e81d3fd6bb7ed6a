"""The process that predicts: loads the model once, then answers images a chunk at a time.

Started by `watch.Watched` as `python -m diffinst.scale.worker`; talks through stdin and stdout.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import torch

from diffinst.config import OptionFields, Reading
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.runner import FEW_AT_ONCE, MOST_AT_ONCE
from diffinst.io.disk import FULL
from diffinst.io.image_error import ImageReadError
from diffinst.io.images import Pixels, read
from diffinst.io.one_line import one_line
from diffinst.kernels.memory import keep_freed_memory
from diffinst.results.instances import Instances
from diffinst.scale.fingerprint import hash_of
from diffinst.scale.messages import (
    Answer,
    Broken,
    Instance,
    Item,
    Ready,
    Row,
    Said,
    Setup,
    receive,
    send,
)
from diffinst.scale.names import as_listed
from diffinst.scale.plan import image_seed
from diffinst.scale.remote import is_uri, local_copy, reason
from diffinst.weights import store

_TRIAL = 32  # pixels of the side of the image that shows that the model works at all


class Outage(Exception):
    """This machine cannot go on, whatever the image: no row may say that the image is bad."""


class Unfetched(ImageReadError):
    """An image's file cannot be opened or fetched; nothing is known of the image."""


class _Source(str):
    """An image by its path, for messages; two of one path stay two."""

    item: Item

    def __new__(cls, item: Item) -> _Source:
        """The path of an item, with the item."""
        made = super().__new__(cls, item.path)
        made.item = item
        return made


def main() -> None:
    """Answer what comes through stdin until it ends, which it does when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops us
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between messages
    first = receive(asked)
    if first is None:
        return
    coming: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, coming), daemon=True).start()
    try:
        predict = _ready(msgspec.msgpack.decode(first, type=Setup), lambda one: send(answers, one))
        while True:
            predict(coming.get())
    except BrokenPipeError:
        return
    except Exception as error:
        final = isinstance(error, Outage)
        text = str(error) if final else f"{type(error).__name__}: {error}"
        send(answers, Broken(one_line(text), final))
        raise


def _listen(asked: BinaryIO, coming: queue.SimpleQueue[list[Item]]) -> None:
    """Hand on what comes; end the process, whatever it is at, when the parent is gone."""
    while (content := receive(asked)) is not None:
        coming.put(msgspec.msgpack.decode(content, type=list[Item]))
    os._exit(1)


def _ready(setup: Setup, tell: Callable[[Answer], None]) -> Callable[[Sequence[Item]], None]:
    """Load the model, try it, and say so; returns what answers a chunk of images."""
    keep_freed_memory()
    torch.set_num_threads(1)  # sums of several threads differ in their last digits
    model = load(setup)
    at_once = MOST_AT_ONCE.get(model.device.type, FEW_AT_ONCE)
    reading = Reading.model_validate(setup.reading)
    options = cast(OptionFields, setup.options)  # checked by who asked
    blank = np.zeros((_TRIAL, _TRIAL, 3), np.uint8)
    model.predict(blank, **options)
    tell(Ready(at_once))

    def predict(items: Sequence[Item]) -> None:
        def seed_of(source: _Source) -> int:
            return image_seed(setup.seed, source.item.id)

        def read_by(source: _Source, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
            return _read(source.item.path, setup.root, reading)

        for source, found in model.predict_each(
            map(_Source, items),
            reading=reading,
            note=lambda text: tell(Said(text)),
            seed_of=seed_of,
            read_by=read_by,
            **options,
        ):
            tell(row_of(source.item, found))

    return predict


def load(setup: Setup) -> DiffusionInst:
    """The model of a run.

    Raises:
        CheckpointError: There is none here.
        ValueError: It is another one than the run's.
    """
    if setup.root and not Path(setup.root).is_dir():
        raise ValueError(f"{setup.root}: the images' folder is not on this machine; mount it there")
    folder = store.locate(setup.model)
    if hash_of(folder / store.WEIGHTS_FILE) != setup.weights:
        raise ValueError(f"{setup.model}: its weights are others than at the start of the run")
    loaded = DiffusionInst.from_pretrained(folder, device=setup.device)
    return loaded.optimize(setup.precision)  # type: ignore[arg-type]


def row_of(item: Item, found: Instances | ImageReadError) -> Row:
    """A prediction, or an error, as a row."""
    if isinstance(found, ImageReadError):
        fetched = not isinstance(found, Unfetched)
        return Row(item.id, item.path, item.bytes, error=str(found), fetched=fetched)
    found = found.to("cpu")
    instances = [
        Instance(label, score, (box[0], box[1], box[2], box[3]), rle["counts"], {"area": area})
        for label, score, box, rle, area in zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes.tolist(),
            found.mask_crops.to_rle(),
            found.mask_crops.area().tolist(),
            strict=True,
        )
    ]
    height, width = found.image_size
    return Row(item.id, item.path, item.bytes, height, width, None, instances)


def _read(path: str, root: str, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    """Pixels of a file or an address; errors name it as the plan does, wherever it lies.

    Raises:
        ImageReadError: The image cannot be read.
        Outage: There is no room for a copy, or the images' folder is gone.
    """
    if not is_uri(path):
        try:
            return _named(os.path.join(root, as_listed(path)), path, reading)
        except Unfetched:
            if root and not os.path.isdir(root):
                raise Outage(
                    f"{root}: the images' folder is gone; mount it and run the same command again"
                ) from None
            raise
    try:
        with local_copy(as_listed(path)) as copy:
            return _named(str(copy), path, reading)
    except ImageReadError:
        raise
    except Exception as error:  # of each protocol's own kind
        if isinstance(error, OSError) and error.errno in FULL:
            raise Outage(
                f"{tempfile.gettempdir()}: the disk (or your quota) is full; free some space "
                "there, or set TMPDIR, and run the same command again"
            ) from error
        raise Unfetched(f"{path}: cannot be fetched ({reason(error)})") from error


def _named(file: str, path: str, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    try:
        pixels, notes = read(file, reading)
    except ImageReadError as error:
        # Messages have escapes in place of what is not printable; so have names in them.
        kind = Unfetched if _of_system(error) else type(error)
        raise kind(str(error).replace(one_line(file), path)) from error
    return pixels, tuple(one_line(note.replace(file, path)) for note in notes)


def _of_system(error: BaseException | None) -> bool:
    """Whether it comes of an error of the system; those of decoders have no number."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    main()
