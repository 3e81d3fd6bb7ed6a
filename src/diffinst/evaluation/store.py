"""Keeps predictions beyond a killed run: one line per image, beside the settings they need.

RUN/settings.json              what the predictions were made with
RUN/predictions/*.jsonl        one file per process that wrote; a torn last line is ignored
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.prediction import Prediction, Request
from diffinst.evaluation.source import Source
from diffinst.io.atomic import write_json

SETTINGS_FILE = "settings.json"
PREDICTIONS = "predictions"

Settings = dict[str, str | int]


def describe(source: Source, split: Split, asked: Request, device: str) -> Settings:
    """All that a prediction depends on, by name.

    Args:
        source: The model.
        split: The images; ids, sizes and paths below its folder are hashed, so that may move.
        asked: How they are predicted.
        device: Where; its kind counts.
    """
    images = [[r.id, _place(r, split), r.height, r.width] for r in split.records]
    return {
        "diffinst": _version(),
        "torch": str(torch.__version__),
        "device": torch.device(device).type,
        "model": source.digest,
        "config": source.config_digest,
        "split": split.name,
        "images": hashlib.sha256(json.dumps(images).encode()).hexdigest(),
        "steps": "auto" if asked.until_settled else asked.steps,
        "sampler": asked.kind,
        "proposals": asked.proposals,
        "max_detections": asked.max_detections,
        "seed": asked.seed,
        "noises": asked.noises,
        "categories": ",".join(map(str, asked.category_ids)),
    }


def _place(record: ImageRecord, split: Split) -> str:
    path = record.path
    inside = path.is_relative_to(split.image_dir)
    return (path.relative_to(split.image_dir) if inside else path).as_posix()


class Store:
    """The predictions in one run folder.

    Args:
        folder: The run; made if needed.
        settings: From `describe`; noted in the folder when it is new.

    Raises:
        ValueError: The folder holds predictions of other settings; names what differs.
        OSError: The folder cannot be written.

    Attributes:
        shards: The folder of the predictions.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str | int]) -> None:
        self.shards = folder / PREDICTIONS
        path = folder / SETTINGS_FILE
        if path.is_file():
            _check_same(path, settings)
        else:
            if any(self._files()):
                raise ValueError(
                    f"{self.shards} holds predictions without {path.name}: nobody knows "
                    "what they were made with; choose another folder or remove them"
                )
            write_json(path, dict(settings))

    def _files(self) -> list[Path]:
        return sorted(self.shards.glob("*.jsonl"))

    def read(self, split: Split, records: Iterable[ImageRecord] = ()) -> dict[int, Prediction]:
        """What is there, by image.

        Args:
            split: Whose images may be there.
            records: Images whose files must still have the size that they were predicted at; files
                that are gone are not compared.

        Raises:
            ValueError: A line is broken (other than a file's last one), an image is not the
                split's, there are two different predictions of one, or an image was replaced.
        """
        known = {record.id for record in split.records}
        merged: dict[int, tuple[Prediction, str]] = {}
        for path in self._files():
            for where, prediction in _lines(path):
                image_id = prediction.image_id
                if image_id not in known:
                    raise ValueError(f"{where}: image {image_id} is not in the split; remove it")
                before, place = merged.setdefault(image_id, (prediction, where))
                if before.results != prediction.results:
                    raise ValueError(
                        f"{where}: another prediction of image {image_id} than at {place}, though "
                        "the settings are the same (another machine or device?); remove one of "
                        "the two files and run again"
                    )
        predictions = {image_id: prediction for image_id, (prediction, _) in merged.items()}
        for record in records:
            _check_file(record, predictions.get(record.id))
        return predictions


class Shard:
    """A new file of predictions, made with the first one: a process without work leaves none.

    Args:
        folder: Made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"

    def append(self, prediction: Prediction) -> None:
        """Write one line and hand it to the operating system."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(vars(prediction), allow_nan=False) + "\n")


def _version() -> str:
    try:
        return version("diffinst")
    except PackageNotFoundError:
        return "not installed"


def _lines(path: Path) -> Iterator[tuple[str, Prediction]]:
    """Each line with its place; what a killed process left of its last line is omitted."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                keys = ("image_id", "seconds", "results", "file_size")
                prediction = Prediction(*(entry[key] for key in keys))
            except (ValueError, KeyError, TypeError) as error:
                if not any(rest.strip(b"\n") for rest in file):  # the last that holds anything
                    return
                raise ValueError(
                    f"{path}, line {number} is broken ({error}); remove this line or the file and "
                    "run again"
                ) from error
            yield f"{path}, line {number}", prediction


def _check_file(record: ImageRecord, prediction: Prediction | None) -> None:
    if prediction is None or prediction.file_size is None or not record.path.is_file():
        return
    size = record.path.stat().st_size
    if size != prediction.file_size:
        raise ValueError(
            f"{record.path} has {size} bytes, it had {prediction.file_size} when it was "
            "predicted: put that image back, or choose another folder for the evaluation"
        )


def _check_same(path: Path, settings: Mapping[str, str | int]) -> None:
    try:
        there = json.loads(path.read_text("utf-8"))
        differing = [k for k in {**there, **settings} if there.get(k) != settings.get(k)]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not readable ({error}); choose another folder or remove this one"
        ) from error
    if differing:
        parts = (f"{k} {_short(there.get(k))} (now {_short(settings.get(k))})" for k in differing)
        raise ValueError(
            f"{path.parent} holds predictions of another evaluation: {', '.join(parts)}; choose "
            "another folder, or repeat its settings to go on with it"
        )


def _short(value: object) -> str:
    """Hashes by their first letters, long lists of ids by their start."""
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}..."
