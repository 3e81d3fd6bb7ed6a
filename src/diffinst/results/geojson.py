"""Instances as GeoJSON, as QuPath and map programs read it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from diffinst.io.atomic import atomic_path
from diffinst.io.windows.source import Transform
from diffinst.results.convert import noted
from diffinst.results.outlines import Ring, polygons
from diffinst.results.render.marks import PALETTE

if TYPE_CHECKING:
    from diffinst.results.instances import Instances

_NAMESPACE = uuid.UUID("6f0c5a2e-9a8e-5c53-8d6b-1f6d1c1a6b0e")  # of our own; any would do


class Feature(TypedDict):
    """One instance."""

    type: str
    id: str
    geometry: dict[str, object]
    properties: dict[str, object]


class FeatureCollection(TypedDict):
    """All instances of an image."""

    type: str
    features: list[Feature]


def features(
    found: Instances, first: int = 0, transform: Transform | None = None
) -> Iterator[Feature]:
    """One feature per instance that has a mask, in the order of the result.

    The outline follows the edges of the pixels, so that it holds the very pixels of the mask. A
    mask of several parts is a MultiPolygon. Properties are those of QuPath's detections;
    measurements are the score and the optional fields that are there.

    Args:
        found: The instances.
        first: The number of the first one; ids follow from it, the same ones at each call.
        transform: From pixels to map coordinates; None: pixels.
    """
    scores, labels, others = found.scores.tolist(), found.labels.tolist(), noted(found)
    for i, ((y, x), mask) in enumerate(found.mask_crops.placed()):
        parts: list[list[object]] = [
            [_placed(ring, transform) for ring in part] for part in polygons(mask, y, x)
        ]
        if not parts:
            continue
        one = len(parts) == 1
        name, numbers = found.class_names[labels[i]], {"score": scores[i], **others[i]}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, str(first + i))),
            "geometry": {
                "type": "Polygon" if one else "MultiPolygon",
                "coordinates": parts[0] if one else parts,
            },
            "properties": {
                "objectType": "detection",
                "classification": {"name": name, "color": list(PALETTE[labels[i] % len(PALETTE)])},
                "measurements": {key: round(value, 4) for key, value in numbers.items()},
            },
        }


def write_geojson(
    path: Path,
    parts: Iterable[Instances],
    transform: Transform | None = None,
    crs: str | None = None,
    note: Callable[[int], None] = lambda count: None,
) -> int:
    """Write a FeatureCollection, part after part, one feature a line; returns how many.

    Args:
        path: The file.
        parts: Results on one image.
        transform: From pixels to map coordinates.
        crs: Of the map; written as GDAL and QGIS read it.
        note: Called with the number written so far.
    """
    count = written = 0
    head = '{"type": "FeatureCollection",\n'
    if crs is not None and transform is not None:
        member = {"type": "name", "properties": {"name": _urn(crs)}}
        head += f'"crs": {json.dumps(member)},\n'
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(f'{head}"features": [')
        for part in parts:
            for feature in features(part, count, transform):
                file.write(",\n" if written else "\n")
                file.write(json.dumps(feature, ensure_ascii=False))
                written += 1
            count += len(part)
            note(count)
        file.write("\n]}\n")
    return written


def _placed(ring: Ring, transform: Transform | None) -> list[list[float]]:
    if transform is None:
        return [[x, y] for x, y in ring]
    a, b, c, d, e, f = transform
    placed = [[a * x + b * y + c, d * x + e * y + f] for x, y in ring]
    return placed if a * e - b * d > 0 else placed[::-1]  # outer rings turn left on the map, too


def _urn(crs: str) -> str:
    authority, _, code = crs.partition(":")
    return f"urn:ogc:def:crs:{authority}::{code}" if authority == "EPSG" else crs
