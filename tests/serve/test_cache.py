from __future__ import annotations

import numpy as np

from diffinst import DiffusionInst
from diffinst.serve.cache import Cache, Key, size_of


def test_the_least_recently_used_goes_and_bytes_stay_bounded(tiny: DiffusionInst) -> None:
    made = [tiny.encode(np.full((48, 64, 3), i, np.uint8)) for i in range(3)]
    one = size_of(made[0])
    cache = Cache(2 * one)
    a, b, c = ((Key(None, str(i), "tiny"), lambda i=i: made[i]) for i in range(3))
    assert cache.get(*a) is cache.get(*a) is made[0]
    cache.get(*b)
    cache.get(*a)  # now b is the oldest
    cache.get(*c)
    assert (len(cache), cache.bytes) == (2, 2 * one)
    assert (cache.hits, cache.misses) == (2, 3)
    cache.get(*a)
    assert cache.misses == 3
    cache.get(*b)
    assert cache.misses == 4
    cache.forget(lambda key, image: image is made[0])
    assert (len(cache), cache.bytes) == (1, one)
    cache.forget(lambda key, image: key == b[0])
    assert (len(cache), cache.bytes) == (0, 0)


def test_an_image_larger_than_all_is_given_but_not_kept(tiny: DiffusionInst) -> None:
    image = tiny.encode(np.zeros((48, 64, 3), np.uint8))
    cache = Cache(size_of(image) - 1)
    assert cache.get(Key(None, "a", "tiny"), lambda: image) is image
    assert (len(cache), cache.bytes) == (0, 0)
