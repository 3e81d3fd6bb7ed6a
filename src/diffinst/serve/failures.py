"""What clients are told when a request fails: always a status and one line."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from diffinst.serve.refusal import Refused


def say_failures(app: FastAPI) -> None:
    """Have the app say them."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(MemoryError, _too_large)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.detail}, error.status, headers=error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    """One line for the first thing that is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    detail = Refused(422, f"{where or 'request'}: {first['msg']}").detail
    return JSONResponse({"detail": detail}, 422)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": str(error.detail)}, error.status_code, headers=error.headers)


def _too_large(request: Request, error: Exception) -> Response:
    """Says what to lower, as the package does."""
    return JSONResponse({"detail": Refused(507, str(error)).detail}, 507)


def _left(request: Request, error: Exception) -> Response:
    """Half an upload: nothing was kept, and nobody reads this."""
    return JSONResponse({"detail": "the upload ended before its end"}, 400)
