"""What the addresses share, and whose session a request belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request, Response

from diffinst.serve.engine import Engine
from diffinst.serve.sessions import SESSION_ID, Sessions

SESSION_COOKIE = "diffinst_session"
MONTH = 30 * 24 * 3600  # seconds that a browser keeps the token
LONGEST = 400 * 24 * 3600  # seconds; browsers keep no cookie for longer


@dataclass(frozen=True)
class Serving:
    """What the addresses share."""

    engine: Engine
    token: str | None

    @property
    def sessions(self) -> Sessions:
        """On disk."""
        return self.engine.sessions


def serving_of(request: Request) -> Serving:
    """What the app of a request was made with."""
    serving: Serving = request.app.state.serving
    return serving


def session_of(request: Request) -> str | None:
    """The session that the client has, if its id is of the form that was given out."""
    given = request.cookies.get(SESSION_COOKIE, "")
    return given if SESSION_ID.fullmatch(given) else None


def keep_session(answer: Response, session: str) -> None:
    """Have the browser keep its session; the server decides when one that is unused ends."""
    answer.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="strict", max_age=LONGEST)
