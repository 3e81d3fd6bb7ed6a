"""`diffinst serve`."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from diffinst.cli.options import Device, usable_device
from diffinst.cli.terminal import say

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    host: str = "127.0.0.1",
    port: Port = 8765,
    token: str | None = None,
    folder: Path = Path("runs/serve"),
    session_mb: Annotated[float, Parameter(validator=Number(gt=0))] = 4000.0,
    session_days: Annotated[float, Parameter(validator=Number(gte=0))] = 90.0,
    train: bool | None = None,
    device: Device = None,
) -> None:
    """A page in the browser, and the same as an HTTP API.

    Example: diffinst serve --model nano-nuclei

    Open the address that it prints: give it an image, watch the steps, draw boxes, click, export.
    What was done is kept in FOLDER and is there again after a restart. Ctrl-C ends it.

    Parameters
    ----------
    model
        Names of shipped weights, model folders, files or hub ids; the first is the default one, and
        no other is ever loaded. Default: nano-nuclei.
    host
        The address to listen at; 0.0.0.0 for all of this machine. Other than 127.0.0.1 asks for a
        token.
    port
        0: a free one.
    token
        What clients have to bring; default: none at 127.0.0.1, elsewhere one made for this run.
    folder
        Where the sessions are kept.
    session_mb
        Megabytes that a session may hold there: images, work, models that it trained.
    session_days
        Days after which an unused session is removed; 0: none ever is.
    train
        Let sessions train models on what they corrected. Default: at 127.0.0.1 only.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ValueError(
            f"serve needs the package {error.name}; run `pip install 'diffinst[serve]'`"
        ) from error
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.io.lock import alone_in
    from diffinst.serve.app import create_app
    from diffinst.serve.limits import Limits

    names = model or ["nano-nuclei"]
    local = _is_loopback(host)
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable()):
        raise ValueError("--token: give at least 8 characters of ASCII, or omit it")
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    with alone_in(folder), _listening(host, port) as listening:
        where = usable_device(device)
        loaded = {_shown(name): DiffusionInst.from_pretrained(name, device=where) for name in names}
        if len(loaded) < len(names):
            raise ValueError(f"--model {' '.join(names)}: two have one name; rename a folder")
        hosts = frozenset({"127.0.0.1", "localhost", "::1", host}) if local else None
        may_train = local if train is None else train
        limits = Limits(
            session_bytes=int(session_mb * 1e6),
            session_days=session_days,
            iterations=Limits.iterations if may_train else 0,
        )
        app = create_app(loaded, folder, token=token, hosts=hosts, limits=limits)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        say(f"page       {address}{f'#token={token}' if token else ''}")
        say(f"API        {address}openapi.json\nsessions   {folder}\nCtrl-C ends it")
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, access_log=False, proxy_headers=False,
            timeout_graceful_shutdown=5, limit_concurrency=256, timeout_keep_alive=15,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens; a taken port is said before a model is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); give another "
            "port, 0 for a free one, or an address of this machine"
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(name: str) -> str:
    """What clients call a model: never the path to it."""
    return Path(name).name or name
