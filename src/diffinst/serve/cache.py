"""Keeps the images that were asked about last in their encoded form, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from diffinst.inference.image import EncodedImage


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
        self._kept: OrderedDict[Hashable, tuple[EncodedImage, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], EncodedImage]) -> EncodedImage:
        """The image of this key; made and kept where it is not there."""
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key][0]
            self.misses += 1
        image = make()
        size = size_of(image)
        with self._lock:
            self._drop(key)
            if size <= self.most:
                self._kept[key] = (image, size)
                self.bytes += size
            while self.bytes > self.most:
                self._drop(next(iter(self._kept)))
        return image

    def forget(self, matches: Callable[[Hashable, EncodedImage], bool]) -> None:
        """Drop the images that match, with their keys."""
        with self._lock:
            for key in [key for key, (image, _) in self._kept.items() if matches(key, image)]:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        if key in self._kept:
            self.bytes -= self._kept.pop(key)[1]
