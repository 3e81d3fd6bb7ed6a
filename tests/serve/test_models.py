"""Which models is a session offered, where one of its own is damaged?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from diffinst import DiffusionInst
from diffinst.io.atomic import write_json
from diffinst.serve.train_run import Asked, Standing
from diffinst.weights.store import CONFIG_FILE


@pytest.mark.parametrize("damaged", [True, False])
def test_a_trained_model_without_its_config_is_not_offered(
    client: TestClient, png: bytes, tiny: DiffusionInst, tmp_path: Path, damaged: bool
) -> None:
    image = client.post("/images", content=png).json()["id"]
    (place,) = (tmp_path / "sessions").iterdir()
    folder = place / "training" / "1"
    tiny.save_pretrained(folder / "model")
    asked = Asked("tiny-trained-1", "tiny", 5, (), (), tiny.class_names, 0.0)
    write_json(folder / "asked.json", asdict(asked))
    Standing(phase="done", old=0.1, new=0.2).write(folder)
    names = [one["name"] for one in client.get("/models").json()["models"]]
    assert names == ["tiny", "tiny-trained-1"]

    config = folder / "model" / CONFIG_FILE
    config.unlink()
    if damaged:
        config.write_text("{")
    assert [one["name"] for one in client.get("/models").json()["models"]] == ["tiny"]
    body = {"image": image, "proposals": 20}
    assert client.post("/predict", json=body).status_code == 200
    refused = client.post("/predict", json={**body, "model": "tiny-trained-1"})
    assert refused.status_code == 410 and "cannot be read any more" in refused.json()["detail"]
