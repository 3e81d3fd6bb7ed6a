"""What a client is told when a request is refused: a status and one line."""

from __future__ import annotations

from diffinst.io.one_line import one_line


class Refused(Exception):
    """A request that is not served.

    Args:
        status: Of HTTP.
        detail: What was asked, what is allowed, what to do; made one printable line.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        self.status, self.detail, self.retry_after = status, one_line(detail), retry_after
        super().__init__(self.detail)

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
