"""How much a client may ask for: bytes, pixels, time, waiting requests, requests a minute."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_CLIENTS = 10_000  # whose rates are remembered


@dataclass(frozen=True)
class Limits:
    """What is allowed; a request beyond it is refused with a status and a line that says so.

    Attributes:
        upload_bytes: Of an image file.
        body_bytes: Of any other request.
        body_seconds: For a body to arrive.
        pixels: Of an image.
        images: Of a session.
        session_bytes: Of a session on disk, models that it trained included, tiles not.
        session_days: Unused, after which a session is removed; 0: never.
        iterations: Of one training; 0: nobody trains.
        seconds: Of work on one request; it ends at the step after it.
        steps: Denoising steps of one request.
        proposals: Boxes of a step.
        noises: Runs of one request.
        prompts: Boxes and clicked objects of one request; also clicks of an object.
        waiting: Requests for work that are there at a time, the one at work included.
        rate: Requests a second of one address, over a while.
        burst: Requests of one address at once.
        cache_bytes: Of images that are kept encoded.
    """

    upload_bytes: int = 50_000_000
    body_bytes: int = 1_000_000
    body_seconds: float = 60.0
    pixels: int = 25_000_000
    images: int = 200
    session_bytes: int = 4_000_000_000
    session_days: float = 90.0
    iterations: int = 20_000
    seconds: float = 120.0
    steps: int = 64
    proposals: int = 2000
    noises: int = 8
    prompts: int = 64
    waiting: int = 8
    rate: float = 10.0
    burst: int = 100
    cache_bytes: int = 1_000_000_000


class Rate:
    """A bucket of permits for each address, filled steadily.

    Args:
        rate: Permits a second.
        burst: Permits that a full bucket holds.
        clock: Seconds.

    Example:
        >>> rate = Rate(1.0, 2, clock=lambda: 0.0)
        >>> [rate.wait("a"), rate.wait("a"), rate.wait("a"), rate.wait("b")]
        [0, 0, 1, 0]
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """Take a permit: 0; or whole seconds until there is one again."""
        now = self._clock()
        left, since = self._left.pop(client, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._rate)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) / self._rate)
