"""The card of a model folder: README.md, with the front matter that Hugging Face's hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffinst.config import Config
from diffinst.io.atomic import write_text

CARD_FILE = "README.md"
MARK = "<!-- Written by diffinst. Without this line the card is yours and is never overwritten. -->"
DATA_KEY = "training_data"  # ours; the hub's `datasets` are its own
CLASSES_LISTED = 100


@dataclass(frozen=True)
class Card:
    """What the weights themselves do not tell; what is empty is named as unknown.

    Attributes:
        license: Of the weights, one of the hub's short names: apache-2.0, mit, cc-by-4.0, ...
        data: What they were trained on, in a few words.
        metrics: Scores on held-out data by name, such as `mask/AP`, in [0, 1].
    """

    license: str = ""
    data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """From the front matter of a folder's README.md; empty where there is none of ours."""
        try:
            _, front, _ = (folder / CARD_FILE).read_text("utf-8").split("---\n", 2)
            values = yaml.safe_load(front)
            results = values.get("model-index", [{}])[0].get("results", [{}])[0]
            metrics = {m["type"]: float(m["value"]) for m in results.get("metrics", [])}
            return cls(str(values.get("license", "")), str(values.get(DATA_KEY, "")), metrics)
        except (OSError, ValueError, TypeError, AttributeError, LookupError, yaml.YAMLError):
            return cls()  # a card of another form, which no model needs to be loaded

    def text(self, config: Config, name: str) -> str:
        """The whole card.

        Args:
            config: Of the model.
            name: Of the model.
        """
        model, sampler = config.model, config.sampler
        classes = ", ".join(model.names[:CLASSES_LISTED])
        if len(model.names) > CLASSES_LISTED:
            classes += ", ..."
        front = yaml.safe_dump(self._front(name), sort_keys=False, allow_unicode=True)
        rows = [f"| {key} | {value:.3f} |\n" for key, value in self.metrics.items()]
        table = "".join(["| metric | value |\n|---|---|\n", *rows]) if rows else "Not measured.\n"
        unknown = "not stated; say it here before you share the weights"
        return f"""---
{front}---
{MARK}

# {name}

Instance segmentation by denoising boxes, with [DiffusionInst](https://arxiv.org/abs/2212.02773) as
the Python package `diffinst` implements it.

| | |
|---|---|
| licence of the weights | {self.license or unknown} |
| data | {self.data or unknown} |
| classes | {len(model.names)}: {classes} |
| backbone | {model.backbone.name} |
| defaults | {sampler.steps} steps, {sampler.proposals} proposals |

## Use

```python
from diffinst import DiffusionInst

model = DiffusionInst.from_pretrained("FOLDER OR HUB ID")
result = model.predict("image.png")
```

## Metrics

{table}"""

    def _front(self, name: str) -> dict[str, Any]:
        front: dict[str, Any] = {
            "library_name": "diffinst",
            "pipeline_tag": "image-segmentation",
            "tags": ["instance-segmentation", "diffusion"],
        }
        if self.license:
            front["license"] = self.license
        if self.data:
            front[DATA_KEY] = self.data
        if self.metrics:
            metrics = [
                {"type": k, "name": k, "value": round(v, 4)} for k, v in self.metrics.items()
            ]
            dataset = {"name": self.data or "not stated", "type": "coco"}
            task = {"type": "image-segmentation", "name": "instance segmentation"}
            result = {"task": task, "dataset": dataset, "metrics": metrics}
            front["model-index"] = [{"name": name, "results": [result]}]
        return front


def is_ours(text: str) -> bool:
    """Whether a card may be overwritten."""
    return MARK in text


def write_card(folder: Path, config: Config, card: Card) -> None:
    """Write a folder's README.md, unless a person has written one.

    Raises:
        OSError: As in `atomic_path`.
    """
    path = folder / CARD_FILE
    if not path.exists() or is_ours(path.read_text("utf-8", errors="replace")):
        write_text(path, card.text(config, folder.resolve().name))


def scores(file: Path) -> dict[str, float]:
    """Mask and box metrics of a metrics.json that training wrote; empty where there is none."""
    values = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    named = {key.removeprefix("val/"): value for key, value in values.items()}
    wanted = ("mask/", "box/")
    return {k: v for k, v in named.items() if k.startswith(wanted) and v is not None}
