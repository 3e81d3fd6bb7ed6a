"""Is the GeoJSON what QuPath and map programs expect, with the masks' very pixels?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.geojson import write_geojson
from diffinst.results.instances import Instances


def two() -> Instances:
    """A 2x3 rectangle of a dog, and a cat in two parts, on 8 x 10 pixels."""
    dense = torch.zeros(2, 8, 10, dtype=torch.bool)
    dense[0, 1:3, 4:7] = True
    dense[1, 5, 2] = dense[1, 7, 2] = True
    return Instances(
        boxes=torch.tensor([[4.0, 1.0, 7.0, 3.0], [2.0, 5.0, 3.0, 8.0]]),
        scores=torch.tensor([0.5, 0.75]),
        labels=torch.tensor([1, 0]),
        mask_crops=CroppedMasks.from_dense(dense),
        image_size=(8, 10),
        class_names=("cat", "dog"),
    )


def test_features_hold_outline_class_and_score() -> None:
    collection = two().to_geojson()
    dog, cat = collection["features"]
    ring = [[4, 1], [7, 1], [7, 3], [4, 3], [4, 1]]
    assert dog["geometry"] == {"type": "Polygon", "coordinates": [ring]}
    assert cat["geometry"]["type"] == "MultiPolygon"
    assert dog["properties"]["objectType"] == "detection"
    assert dog["properties"]["classification"]["name"] == "dog"  # type: ignore[index]
    assert cat["properties"]["measurements"] == {"score": 0.75}
    assert len({dog["id"], cat["id"]}) == 2


def test_track_and_doubt_are_numbers_among_the_measurements() -> None:
    half = torch.full((2,), 0.5)
    full = replace(two(), ids=torch.tensor([7, 9]), stability=half, mask_agreement=half / 3)
    first, second = (f["properties"]["measurements"] for f in full.to_geojson()["features"])
    assert first == {"score": 0.5, "track_id": 7, "stability": 0.5, "mask_agreement": 0.1667}
    assert second == {**first, "score": 0.75, "track_id": 9}


def test_a_file_of_parts_is_one_collection_with_ids_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "found.geojson"
    assert write_geojson(path, [two(), Instances.empty((8, 10), ("cat", "dog")), two()]) == 4
    collection = json.loads(path.read_text())
    assert len({feature["id"] for feature in collection["features"]}) == 4
    assert collection["features"][:2] == two().to_geojson()["features"]


def test_map_coordinates_turn_left_and_name_their_system(tmp_path: Path) -> None:
    path = tmp_path / "map.geojson"
    write_geojson(path, [two()], (0.5, 0, 1000, 0, -0.5, 2000), "EPSG:32633")
    collection = json.loads(path.read_text())
    assert collection["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    ring = np.array(collection["features"][0]["geometry"]["coordinates"][0])
    assert ring.min(0).tolist() == [1002, 1998.5] and ring.max(0).tolist() == [1003.5, 1999.5]
    x, y = ring.T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_nothing_found_is_an_empty_collection(tmp_path: Path) -> None:
    write_geojson(tmp_path / "none.geojson", [])
    empty = {"type": "FeatureCollection", "features": []}
    assert json.loads((tmp_path / "none.geojson").read_text()) == empty
