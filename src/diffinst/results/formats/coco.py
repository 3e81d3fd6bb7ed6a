"""Writes COCO's annotation format: images, annotations and categories in one json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffinst.io.atomic import atomic_path
from diffinst.results.crops import CompressedRLE
from diffinst.results.formats.polygons import parts
from diffinst.results.formats.scene import Scene
from diffinst.results.formats.spool import Spool


class CocoFile:
    """One json for all images.

    A mask is a list of polygons, one for each part; with a hole it is RLE, which holds all. Both
    give the very mask in pycocotools. Objects without pixels are left out.

    Args:
        path: The json.
        class_names: Category ids are their places, from 1.
        boxes: Write `bbox`, tight around the mask. Tools that compare masks sort objects into
            small, medium and large by it where it is there.
    """

    def __init__(self, path: Path, class_names: Sequence[str], *, boxes: bool = True) -> None:
        self.path, self.boxes = path, boxes
        self.class_names = tuple(class_names)
        self._images, self._annotations = Spool(path.parent), Spool(path.parent)

    def add(self, scene: Scene) -> None:
        """Append an image and its objects."""
        height, width = scene.found.image_size
        entry = {"id": scene.image_id, "file_name": scene.file_name}
        annotations = self._entries(scene)
        _append(self._images, {**entry, "height": height, "width": width})
        for annotation in annotations:
            _append(self._annotations, annotation)

    def _entries(self, scene: Scene) -> list[dict[str, object]]:
        found = scene.found
        results = found.to_coco(scene.image_id)
        entries: list[dict[str, object]] = []
        for result, ((y, x), mask) in zip(results, found.mask_crops.placed(), strict=True):
            pieces = parts(mask, y, x)
            if not pieces:
                continue
            segmentation: list[list[float]] | CompressedRLE = result["segmentation"]
            if all(len(piece) == 1 for piece in pieces):
                segmentation = [[v for point in piece[0] for v in point] for piece in pieces]
            entry: dict[str, object] = {
                "id": self._annotations.count + len(entries) + 1,
                **result,
                "segmentation": segmentation,
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            if not self.boxes:
                del entry["bbox"]
            entries.append(entry)
        return entries

    def finish(self) -> None:
        """Write the file."""
        categories = [{"id": i, "name": name} for i, name in enumerate(self.class_names, start=1)]
        with atomic_path(self.path) as temporary, open(temporary, "wb") as out:
            out.write(b'{"images": [')
            self._images.copy_to(out)
            out.write(b'\n],\n"annotations": [')
            self._annotations.copy_to(out)
            names = json.dumps(categories, ensure_ascii=False)
            out.write(f'\n],\n"categories": {names}}}\n'.encode())


def _append(table: Spool, entry: dict[str, object]) -> None:
    table.add(("," if table.count else "") + "\n" + json.dumps(entry, ensure_ascii=False))
