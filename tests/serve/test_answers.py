"""Is a client told which classes the labels are of?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient

from diffinst import DiffusionInst
from diffinst.serve.app import create_app

NewClient = Callable[..., TestClient]


def test_work_names_the_classes_of_the_model_that_made_it(
    animals: dict[str, DiffusionInst], tmp_path: Path, png: bytes, new_client: NewClient
) -> None:
    client = new_client(create_app(animals, tmp_path))
    image = client.post("/images", content=png).json()["id"]
    at = f"/images/{image}"
    assert client.get(at).json()["classes"] == []  # of no model yet
    asked = {"image": image, "model": "other", "proposals": 20, "threshold": 0}
    streamed = client.get("/stream", params=asked).text.strip().split("data: ")[-1]
    told = [json.loads(streamed), client.post("/predict", json=asked).json()]
    told.append(client.get(at).json())
    point = {"image": image, "model": "other", "points": [[9, 9]]}
    told.append(client.post("/prompt", json=point).json())
    relabel = {"action": "label", "label": 2, "objects": [told[-1]["objects"][0]["id"]]}
    told.append(client.post(f"{at}/edit", json=relabel).json())
    assert [one["classes"] for one in told] == [["owl", "cat", "dog"]] * len(told)

    less = new_client(create_app({"first": animals["first"]}, tmp_path))  # the other is gone
    less.cookies = client.cookies
    assert less.get(at).json()["classes"] == []
