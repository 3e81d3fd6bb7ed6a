"""Keeps the images that were asked about last in their encoded form, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from diffinst.inference.image import EncodedImage
from diffinst.serve.window import Window


class Key(NamedTuple):
    """Which encoded image is meant.

    Attributes:
        session: Its id.
        image: Its id.
        model: Name of the model that encodes it.
        window: The part of the image; None: all of it.
    """

    session: str | None
    image: str
    model: str
    window: Window | None = None


def size_of(image: EncodedImage) -> int:
    """Bytes of memory: pixels, pyramid and mask features."""
    encoded = image.encoded
    tensors = (encoded.pyramid.table, encoded.mask_features)
    return int(image.image.nbytes) + sum(t.numel() * t.element_size() for t in tensors)


class Cache:
    """Encoded images, the least recently used ones dropped first.

    Args:
        most: Bytes that all together may take. One that is larger alone is not kept.
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes, self.hits, self.misses = most, 0, 0, 0
        self._kept: OrderedDict[Key, tuple[EncodedImage, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key, make: Callable[[], EncodedImage]) -> EncodedImage:
        """The image of this key; made and kept where it is not there."""
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key][0]
            self.misses += 1
        image = make()
        self.put(key, image)
        return image

    def put(self, key: Key, image: EncodedImage) -> None:
        """Keep an image, if it is not larger than all that may be kept."""
        size = size_of(image)
        with self._lock:
            self._drop(key)
            if size <= self.most:
                self._kept[key] = (image, size)
                self.bytes += size
            while self.bytes > self.most:
                self._drop(next(iter(self._kept)))

    def forget(self, matches: Callable[[Key, EncodedImage], bool]) -> None:
        """Drop the images that match, with their keys."""
        with self._lock:
            for key in [key for key, (image, _) in self._kept.items() if matches(key, image)]:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        if key in self._kept:
            self.bytes -= self._kept.pop(key)[1]
