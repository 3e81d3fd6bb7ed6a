"""Stands before every request: whose it is, where it comes from, how large and how often.

* A page of another site can reach a server on 127.0.0.1 through the browser of a person; so the
  host asked for must be ours, and a browser that says that another site asks is refused.
* With a token, everything but the empty page needs it.
* Every answer forbids the browser to run or load anything that is not ours.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffinst.serve.limits import Limits, Rate
from diffinst.serve.metrics import Metrics
from diffinst.serve.refusal import Refused

TOKEN_COOKIE = "diffinst_token"
UPLOAD = "/images"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI app around another one.

    Args:
        app: What is guarded.
        limits: What is allowed.
        metrics: Counts requests and refusals.
        token: That is asked for; None: none.
        hosts: Names by which a browser may ask for this server; None: any.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        hosts: frozenset[str] | None,
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token, self._hosts = token, hosts
        self._rate = Rate(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        self._metrics.count("requests")
        started, refusal = False, None
        body = _Body(receive, self._most(scope), self._limits.body_seconds)

        async def guarded(message: Message) -> None:
            nonlocal started, refusal
            refusal = refusal or body.refusal
            if refusal is not None and not started:
                return  # what the app makes of a body that ended early is not sent
            if message["type"] == "http.response.start":
                started = True
                headers = [(k, v) for k, v in message["headers"]]
                headers += [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": headers}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, body, guarded)
            refusal = refusal or body.refusal
        except Refused as refused:
            refusal = refused
        if refusal is not None and not started:
            self._metrics.count("refused")
            await _say(send, refusal)

    def _most(self, scope: Scope) -> int:
        upload = scope["path"] == UPLOAD and scope["method"] == "POST"
        return self._limits.upload_bytes if upload else self._limits.body_bytes

    def _check(self, scope: Scope) -> None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._rate.wait(client)
        if wait:
            raise Refused(429, f"too many requests; try again in {wait} s", wait)
        try:
            _same_site(headers, self._hosts, scope["path"])
        except ValueError as error:
            raise Refused(403, "Host or Origin is no address") from error
        if self._token is not None and not _open(scope) and not self._knows(headers):
            raise Refused(401, "this server asks for its token, which it printed at its start")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "Content-Length is no number")
        if int(length) > self._most(scope):
            raise _too_large(self._most(scope))

    def _knows(self, headers: dict[str, str]) -> bool:
        """Whether the token came along, as `Authorization: Bearer` or as the page's cookie."""
        assert self._token is not None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer.strip()] if scheme.lower() == "bearer" else []
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(TOKEN_COOKIE)
        except CookieError:
            cookie = None
        given += [cookie.value] if cookie is not None else []
        return any(same(self._token, one) for one in given)


def same(token: str, given: str) -> bool:
    """Whether two tokens are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape"))


def _open(scope: Scope) -> bool:
    """What needs no token: the page without any data, and the way to hand the token in."""
    path = scope["path"]
    return path in ("/", "/health", "/token") or path.startswith("/static/")


def _same_site(headers: dict[str, str], hosts: Iterable[str] | None, path: str) -> None:
    asked = headers.get("host", "")
    name = (urlsplit(f"//{asked}").hostname or "") if "@" not in asked else ""
    if hosts is not None and name not in hosts:
        raise Refused(403, f"this server is not {asked or 'a server without a name'}; ask for "
                      "the address that it printed")  # fmt: skip
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != asked:
        raise Refused(403, f"requests of other sites ({origin}) are not answered")
    site = headers.get("sec-fetch-site", "none")
    opened = path == "/" and headers.get("sec-fetch-mode") == "navigate"  # a link to the page
    if site not in ("same-origin", "none") and not opened:
        raise Refused(403, "requests of other sites are not answered")


class _Body:
    """Receives a request's body, up to a number of bytes and seconds."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most = receive, most
        self._until = time.monotonic() + seconds
        self._bytes, self._ended = 0, False
        self.refusal: Refused | None = None

    async def __call__(self) -> Message:
        if self._ended:  # from here on it only tells whether the client is there
            return await self._receive()
        try:
            left = max(0.0, self._until - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except (TimeoutError, asyncio.TimeoutError):
            self.refusal = Refused(408, "the request did not arrive in time; send it again")
            raise self.refusal from None
        if message["type"] != "http.request":
            self._ended = True
            return message
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._bytes > self._most:
            self.refusal = _too_large(self._most)
            raise self.refusal
        return message


def _too_large(most: int) -> Refused:
    return Refused(413, f"too large; allowed are {most / 1e6:g} MB")


async def _say(send: Send, refusal: Refused) -> None:
    content = json.dumps({"detail": refusal.detail}).encode()
    headers = {**HEADERS, **refusal.headers, "Content-Type": "application/json"}
    headers["Content-Length"] = str(len(content))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in (408, 413):
        headers["Connection"] = "close"
    listed = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": listed})
    await send({"type": "http.response.body", "body": content})
