"""Every refusal of the server in one form, ``{error: {code, message, hint}}``, as the CLI has it.

The code is the name of the class of the error, so that a client raises what a local store would
have raised. Nothing of what the caller sent is repeated.
"""

import logging
import sys
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigError,
    DatabaseFailed,
    InputError,
    MissingInput,
    ReleaseRefused,
    StoreError,
    UsageError,
)

log = logging.getLogger(__name__)


class Refused(Exception):
    """Ends a call with a status of its own.

    Args:
        status: HTTP status.
        code: Name for programs.
        message: One sentence, ours.
        hint: What to do about it.
    """

    def __init__(self, status: int, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint


def install(app: FastAPI) -> None:
    """Answers whatever a call raises."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(CloisterError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def body(code: str, message: str, hint: str | None = None) -> dict[str, dict[str, str | None]]:
    """The one form."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def _answer(
    status: int, code: str, message: str, hint: str | None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    more = {"cache-control": "no-store", **(headers or {})}
    if status == 503:  # noqa: PLR2004 - Service Unavailable
        more["retry-after"] = "1"
    if status == 401:  # noqa: PLR2004 - Unauthorized
        more["www-authenticate"] = "Bearer"
    return JSONResponse(body(code, message, hint), status, headers=more)


def _refused(_: Request, problem: Exception) -> JSONResponse:
    if not isinstance(problem, Refused):
        raise TypeError("this handler is for refusals")
    return _answer(problem.status, problem.code, problem.message, problem.hint)


def _known(_: Request, problem: Exception) -> JSONResponse:
    if not isinstance(problem, CloisterError):
        raise TypeError("this handler is for errors of the package")
    status = _status(problem)
    if status >= 500:  # noqa: PLR2004 - our own failures
        log.error("%s: %s", type(problem).__name__, problem.message)
    if isinstance(problem, DatabaseFailed):
        # Strangers get here too: where the database is, and who asks it, is in the log alone.
        problem = StoreError("the platform's store cannot be used: its log says why")
    return _answer(status, type(problem).__name__, problem.message, problem.hint)


def _status(problem: CloisterError) -> int:
    if isinstance(problem, MissingInput):
        return 404
    if isinstance(problem, ReleaseRefused | AttestationError):
        return 403
    if isinstance(problem, ConfigError | InputError | UsageError):
        return 400
    return 503 if isinstance(problem, StoreError) else 500


def _invalid(_: Request, problem: Exception) -> JSONResponse:
    """Where the input is wrong and what was expected; never what was sent."""
    if not isinstance(problem, RequestValidationError):
        raise TypeError("this handler is for input that is wrong")
    found = problem.errors()[:MAX_SHOWN]
    shown = "; ".join(f"`{_field(one['loc'])}`: {one['msg']}" for one in found)
    return _answer(400, "InputError", shown[:MAX_MESSAGE], None)


def _field(place: tuple[int | str, ...]) -> str:
    """The place of a field; a name that is no identifier is left out."""
    return ".".join(
        str(part) for part in place if str(part).isidentifier() or isinstance(part, int)
    )


def _http(_: Request, problem: Exception) -> JSONResponse:
    if not isinstance(problem, HTTPException):
        raise TypeError("this handler is for what the framework refuses")
    words = {404: "there is no such call", 405: "this call has another method"}
    message = words.get(problem.status_code, "the request cannot be read")
    return _answer(problem.status_code, "UsageError", message, None, problem.headers)


def _unknown(_: Request, problem: Exception) -> JSONResponse:
    # The text of an unforeseen error may repeat anything: its place says enough.
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    log.error("internal error%s: %s", at, type(problem).__name__, exc_info=sys.flags.dev_mode)
    return _answer(500, "InternalError", "the platform failed; its log says where", None)


MAX_SHOWN = 5
MAX_MESSAGE = 512
