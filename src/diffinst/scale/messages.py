"""What a process that predicts is told and answers: small values that travel through a pipe."""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

import msgspec

LENGTH = 8  # bytes in front of a message


class Item(msgspec.Struct, frozen=True):
    """One image of the plan.

    Attributes:
        id: Of the image; see `plan.image_id`.
        path: Relative to the run's root, or absolute, or a URI; as `names.printable` writes it.
        bytes: Of the file, where the listing says it.
    """

    id: str
    path: str
    bytes: int | None = None


class Setup(msgspec.Struct, frozen=True):
    """All that a process needs to know before its first image.

    Attributes:
        model: As `DiffusionInst.from_pretrained` takes it.
        weights: Their hash, which has to be the model's.
        device: Where to run.
        precision: fp32 or bf16.
        options: Of all predictions, complete but for the seed.
        reading: How images are read.
        seed: The run's; an image's own follows from it and the image's id.
        root: What relative paths start from.
    """

    model: str
    weights: str
    device: str
    precision: str
    options: dict[str, object]
    reading: dict[str, object]
    seed: int
    root: str


class Instance(msgspec.Struct, frozen=True):
    """One object: class, score, box (xyxy, pixels of the image), mask, and what else is known.

    Attributes:
        label: 0-based position in the class names.
        score: In [0, 1].
        box: As predicted; the smallest around the mask follows from `rle`.
        rle: Counts of COCO's compressed run lengths; the size is the image's.
        extras: Numbers by name: `area`, the mask's pixels.
    """

    label: int
    score: float
    box: tuple[float, float, float, float]
    rle: str
    extras: dict[str, float]


class Row(msgspec.Struct, frozen=True, tag=True):
    """One image's result; with an `error` in place of size and instances where there is none.

    Attributes:
        fetched: False: its file could not be opened or fetched, so nothing is known of the image.
            No column; for who writes the part.
    """

    id: str
    path: str
    bytes: int | None = None
    height: int | None = None
    width: int | None = None
    error: str | None = None
    instances: list[Instance] = []
    fetched: bool = True


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded; `at_once` images go through it together."""

    at_once: int


class Said(msgspec.Struct, frozen=True, tag=True):
    """What is to be told of how images are read."""

    text: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """Why the process ends: the last thing that it says.

    Attributes:
        final: Another process would meet the same, whatever the image: the run has to end.
    """

    reason: str
    final: bool = False


Answer: TypeAlias = Row | Ready | Said | Broken
_encoder = msgspec.msgpack.Encoder()
_answers = msgspec.msgpack.Decoder(Answer)


def send(pipe: BinaryIO, message: object) -> None:
    """Write one message."""
    content = _encoder.encode(message)
    pipe.write(len(content).to_bytes(LENGTH, "little") + content)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes | None:
    """The next message as it came; None: the other end is gone."""
    head = pipe.read(LENGTH)
    if len(head) < LENGTH:
        return None
    size = int.from_bytes(head, "little")
    content = pipe.read(size)
    return content if len(content) == size else None


def answer(content: bytes) -> Answer:
    """A message of the process that predicts."""
    return _answers.decode(content)
