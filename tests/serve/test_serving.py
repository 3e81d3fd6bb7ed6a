"""Does a browser keep its session for as long as it is used?"""

from __future__ import annotations

from fastapi.testclient import TestClient

from diffinst.serve.limits import Limits

DAY = 24 * 3600


def test_the_cookie_is_renewed_and_outlives_what_the_server_keeps(
    client: TestClient, png: bytes
) -> None:
    assert "set-cookie" not in client.get("/images").headers  # there is no session yet
    first = client.post("/images", content=png).headers["set-cookie"]
    assert f"Max-Age={400 * DAY}" in first and Limits().session_days < 400
    assert "HttpOnly" in first and "SameSite=strict" in first
    assert client.get("/images").headers["set-cookie"] == first
