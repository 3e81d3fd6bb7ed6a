"""Does the hub's client answer at once where there is no network?"""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from diffinst.io import hub
from diffinst.io.hub import offline_at_once


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_without_a_network_the_client_is_offline_while_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with offline_at_once() as why:
        assert (
            constants.HF_HUB_OFFLINE and why == f"there is no way to {constants.ENDPOINT} from here"
        )
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("proxy", [False, True])
def test_with_one_it_is_asked(monkeypatch: pytest.MonkeyPatch, proxy: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        if proxy:
            monkeypatch.setattr(hub, "getproxies", lambda: {"https": here})
        else:
            monkeypatch.setattr(constants, "ENDPOINT", here)
        with offline_at_once() as why:
            assert not constants.HF_HUB_OFFLINE and why is None


def test_who_is_offline_by_choice_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked"))
    with offline_at_once() as why:
        assert constants.HF_HUB_OFFLINE and why is None
    assert constants.HF_HUB_OFFLINE
