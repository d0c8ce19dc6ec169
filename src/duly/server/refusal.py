"""Answers to what goes wrong outside of functions: a status, a short code for programs, a text for people."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from duly.errors import AppNotOpenError, ConflictError, StoreError, StoreUnavailableError
from duly.server.calls import BadPathError
from duly.server.identity import IdentityError

__all__ = ["REFUSED", "RefusedError", "refuse"]

_log = logging.getLogger("duly")


class RefusedError(Exception):
    """Ends a request with an answer that is no function's."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


REFUSED: tuple[type[Exception], ...] = (
    AppNotOpenError,
    BadPathError,
    ClientDisconnect,
    ConflictError,
    HTTPException,
    IdentityError,
    RefusedError,
    StoreError,
    # Whatever else there is: a bug in duly. Starlette answers and raises it again, so that the server logs it.
    Exception,
)
"""What `refuse` is the handler of."""


async def refuse(_request: Request, error: Exception) -> Response:
    """The answer to an error."""
    refusal = _refusal_for(error)
    content = orjson.dumps({"code": refusal.code, "message": str(refusal)})
    return Response(content, refusal.status, refusal.headers, "application/json")


def _refusal_for(error: Exception) -> RefusedError:
    match error:
        case RefusedError():
            return error
        case HTTPException():
            code = HTTPStatus(error.status_code).phrase.title().replace(" ", "")
            return RefusedError(error.status_code, code, error.detail, error.headers)
        case IdentityError():
            return RefusedError(error.status, error.code, error.message)
        case BadPathError():
            return RefusedError(400, "BadConvexFunctionIdentifier", str(error))
        case ConflictError():
            return RefusedError(
                503, "OptimisticConcurrencyControlFailure", "others changed the same documents each time; try again"
            )
        case AppNotOpenError():
            return RefusedError(503, "AppNotOpen", "the app is not open")
        case StoreUnavailableError():
            # What it says is for those who run the server: it may name files and hosts.
            _log.error("the store can't be used at the moment: %s", error)
            return RefusedError(503, "StoreUnavailable", "the database can't be used at the moment; try again")
        case ClientDisconnect():
            return RefusedError(400, "ClientDisconnected", "the client went away")  # nobody reads it
        case _:
            _log.error("a request failed: %s: %s", type(error).__name__, error)
            return RefusedError(500, "InternalServerError", "the request failed; the server's log says why")
