"""A machine learning backend of Label Studio: all objects of a task, or the one pointed at.

    FLASK_APP='diffinst.adapters.label_studio:app("nano-nuclei")' flask run --port 9090

and http://localhost:9090 under Settings, Model in Label Studio. Needs label-studio-ml.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from diffinst.adapters.loaded import loaded
from diffinst.adapters.meant import meant
from diffinst.config import OptionFields, Options
from diffinst.inference.image import EncodedImage
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.formats.polygons import joined, parts
from diffinst.results.instances import Instances

if TYPE_CHECKING:
    from flask import Flask
    from label_studio_ml.model import LabelStudioMLBase

Json: TypeAlias = dict[str, object]
RUNS = (3, 4, 8, 16)  # bits that the length of a run may take


def app(
    model: str = "nano-nuclei",
    *,
    steps: int | None = None,
    proposals: int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> Flask:
    """The backend's server, as Flask and gunicorn start it.

    Args:
        model: Name of shipped weights, a model folder, a file, or a hub id.
        steps: Denoising steps; None: as the model has it.
        proposals: Boxes to start from; None: as the model has it.
        seed: Of the noise.
        device: cpu, cuda, ...; None: a GPU if there is one.

    Raises:
        ImportError: label-studio-ml is missing.
        CheckpointError: No such model.
        ConfigError: A number out of range; names it.
    """
    try:
        from label_studio_ml.api import init_app
    except ImportError as error:
        raise ImportError(
            "the Label Studio backend needs label-studio-ml; docs/other-tools.md says how to get it"
        ) from error
    options: OptionFields = {"steps": steps, "proposals": proposals, "seed": seed}
    server: Flask = init_app(backend(loaded(model, device), options))
    return server


def backend(model: DiffusionInst, options: OptionFields | None = None) -> type[LabelStudioMLBase]:
    """A class as Label Studio's server makes one for each project."""
    from label_studio_ml.model import LabelStudioMLBase

    answers = Answers(model, options or OptionFields())

    class Backend(LabelStudioMLBase):  # type: ignore[misc]  # its package has no types
        """All objects of a task, or the one that `context` points at."""

        def predict(
            self, tasks: Sequence[Json], context: Json | None = None, **_: object
        ) -> list[Json]:
            """One prediction for each task."""
            tags = Tags.of(self.parsed_label_config, model.class_names)
            return [answers.to(tags, self._file(tags, task), context) for task in tasks]

        def _file(self, tags: Tags, task: Json) -> Path:
            data = task["data"]
            assert isinstance(data, dict)
            get: Callable[..., str] = self.get_local_path
            if "task_id" in inspect.signature(get).parameters:  # from version 2 on
                return Path(get(data[tags.value], task_id=task.get("id")))
            return Path(get(data[tags.value]))

    return Backend


@dataclass(frozen=True)
class Tags:
    """What of a project's labelling interface the answers are for.

    Attributes:
        kind: BrushLabels or PolygonLabels.
        name: Of that tag.
        image: Name of the image's tag.
        value: Key of the image in a task's data.
        labels: The project's label of each class of the model; None: it has none.
    """

    kind: str
    name: str
    image: str
    value: str
    labels: tuple[str | None, ...]

    @classmethod
    def of(cls, config: Mapping[str, Mapping[str, object]], names: Sequence[str]) -> Tags:
        """The first BrushLabels of an interface, else the first PolygonLabels.

        Args:
            config: As Label Studio's `parse_config` gives it.
            names: The model's classes. A model of one class is for a project of one label,
                whatever it is called.

        Raises:
            ValueError: Neither is there, or no label is called like a class.
        """
        for kind in ("BrushLabels", "PolygonLabels"):
            for name, tag in config.items():
                if tag["type"] == kind:
                    known = _list(tag, "labels")
                    by_name = {str(label).lower(): str(label) for label in known}
                    found = tuple(by_name.get(one.lower()) for one in names)
                    if len(names) == len(known) == 1:
                        found = (str(known[0]),)
                    if not any(found):
                        raise ValueError(
                            f"{kind} {name} has the labels {', '.join(map(str, known))}, the model "
                            f"the classes {', '.join(names[:20])}; call labels like classes"
                        )
                    (image, *_), (source, *_) = _list(tag, "to_name"), _list(tag, "inputs")
                    assert isinstance(source, dict)
                    value = str(source["value"])
                    return cls(kind, name, str(image), value, found)
        raise ValueError(
            "the labelling interface has neither BrushLabels nor PolygonLabels; add one of them"
        )


class Answers:
    """Predictions in Label Studio's form.

    Args:
        model: That makes them.
        options: Of each run that finds all objects.
    """

    def __init__(self, model: DiffusionInst, options: OptionFields) -> None:
        Options.of(model.config, **options)  # a wrong one is said at the start
        self._model, self._options = model, options
        self._last: tuple[tuple[Path, int], EncodedImage] | None = None

    def to(self, tags: Tags, file: Path, context: Mapping[str, object] | None) -> Json:
        """The prediction for an image.

        Args:
            tags: What it is for.
            file: The image.
            context: What a person has drawn so far, all for one object; None: all are found.
        """
        drawn = _list(context or {}, "result")
        image = self._encoded(file)
        label = None
        if drawn:
            found, label = _pointed(image, drawn)
        else:
            found = image.predict(**self._options)
        regions = [
            region
            for one in found
            for region in _regions(one, tags, label or tags.labels[int(one.labels[0])])
        ]
        score = float(found.scores.mean()) if len(found) else 0.0
        return {"result": regions, "score": score, "model_version": "diffinst"}

    def _encoded(self, file: Path) -> EncodedImage:
        """The image, encoded once for all clicks on it."""
        key = (file, file.stat().st_mtime_ns)
        last = self._last  # another thread may put its own there meanwhile
        if last is None or last[0] != key:
            self._last = last = (key, self._model.encode(file))
        return last[1]


def _pointed(image: EncodedImage, drawn: Sequence[object]) -> tuple[Instances, str | None]:
    """The object that boxes and clicks mean, and what the person calls it."""
    height, width = image.size
    clicks: list[list[float]] = []
    exclude: list[list[float]] = []
    box, label = None, None
    for item in drawn:
        assert isinstance(item, dict)
        value, kind = item["value"], str(item["type"])
        x, y = value["x"] * width / 100, value["y"] * height / 100  # it counts in per cent
        label = next(iter(value.get(kind, [])), label)
        if kind.startswith("rectangle"):
            box = [x, y, x + value["width"] * width / 100, y + value["height"] * height / 100]
        elif kind.startswith("keypoint"):
            positive = bool(int(item.get("is_positive", 1)))
            (clicks if positive else exclude).append([x, y])
    if box is None and not clicks:
        return Instances.empty(image.size, image.runner.network.config.names), label
    return meant(image, box, clicks, exclude), label


def _regions(one: Instances, tags: Tags, label: str | None) -> list[Json]:
    """An instance as one region, or as one polygon for each of its parts."""
    (((y, x), mask),) = one.mask_crops.placed()
    if label is None or not mask.any():
        return []
    height, width = one.image_size
    values: list[Json]
    if tags.kind == "BrushLabels":
        whole = np.zeros((height, width), bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        values = [{"format": "rle", "rle": brush(whole), "brushlabels": [label]}]
    else:
        lines = [joined(part) for part in parts(mask, y, x)]
        percent = [[[100 * u / width, 100 * v / height] for u, v in line] for line in lines]
        values = [{"points": line, "closed": True, "polygonlabels": [label]} for line in percent]
    return [
        {
            "id": uuid4().hex,  # a region of an id that is there would take its place
            "from_name": tags.name,
            "to_name": tags.image,
            "type": tags.kind.lower(),
            "value": value,
            "score": float(one.scores[0]),
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "readonly": False,
        }
        for value in values
    ]


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio's brush stores it: bytes of the run-length format "rle-pack".

    Four equal values a pixel (RGBA), 0 or 255. A head of 53 bits: 32 for the number of values, 5
    for the bits of a value, four times 4 for the bits that a run's length may take, each less one.
    A run: 1, two bits for which of the four, its length less one, the value.

    Args:
        mask: (height, width) of the whole image.

    Example:
        >>> len(brush(np.ones((10, 10), bool)))  # 53 bits, and one run of 19, in bytes
        10
    """
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(np.diff(flat)) + 1, flat.size)
    bits = [f"{4 * flat.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in RUNS)]
    begin = 0
    for end in ends.tolist():
        value = f"{255 if flat[begin] else 0:08b}"
        left = 4 * (end - begin)
        while left:
            length = min(left, 2 ** RUNS[-1])
            which = next(i for i, size in enumerate(RUNS) if length <= 2**size)
            bits.append(f"1{which:02b}{length - 1:0{RUNS[which]}b}{value}")
            left -= length
        begin = end
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _list(item: Mapping[str, object], key: str) -> list[object]:
    value = item.get(key) or []
    assert isinstance(value, list)
    return value
