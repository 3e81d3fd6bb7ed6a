"""Keeps the hub's client from retrying for a minute where there is no network."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE = 3.0  # seconds
_PORTS = {"http": 80, "https": 443}
_lock = threading.Lock()


@contextmanager
def offline_at_once() -> Iterator[str | None]:
    """Without a way to the hub, its client looks only at what is on this disk, while this runs.

    Its notices (no token, retries) are no news; its errors are raised.

    Yields:
        Why nothing can be fetched; None where it can.
    """
    from huggingface_hub import constants

    with _lock:
        client = logging.getLogger("huggingface_hub")
        before, level = constants.HF_HUB_OFFLINE, client.level
        reachable = before or _reachable(constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = before or not reachable
        client.setLevel(logging.ERROR)
        try:
            yield None if reachable else f"there is no way to {constants.ENDPOINT} from here"
        finally:
            client.setLevel(level)
            constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Whether the host, or the proxy in front of it, takes connections."""
    scheme = urlsplit(address).scheme
    proxies = getproxies()
    place = urlsplit(proxies.get(scheme) or proxies.get("all") or address)
    try:
        port = place.port or _PORTS.get(place.scheme, 443)
        socket.create_connection((place.hostname or "", port), PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True
