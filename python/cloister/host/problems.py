"""Errors of the agent application as problem documents (RFC 9457)."""

import http
import json

from starlette.requests import Request
from starlette.responses import Response

from cloister.errors import (
    AttestationError,
    CloisterError,
    InputError,
    PermissionRefused,
    ReleaseRefused,
    StoreError,
    TransportError,
)

VERSION_HEADER = "x-cloister-version"
VERSION = "1"


class Problem(Exception):
    """Ends a call with a problem document.

    Args:
        status: HTTP status.
        detail: One sentence; ours, not the peer's text.
    """

    def __init__(self, status: http.HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem_text(status: http.HTTPStatus, detail: str) -> str:
    """A problem document as JSON."""
    return json.dumps({"title": status.phrase, "status": int(status), "detail": detail})


def answer_problem(_: Request, problem: Exception) -> Response:
    """Makes the answer for whatever a call raised."""
    if isinstance(problem, Problem):
        status, detail = problem.status, problem.detail
    elif isinstance(problem, CloisterError):
        status, detail = _status(problem), problem.message
    else:
        status = http.HTTPStatus.INTERNAL_SERVER_ERROR
        detail = "the host failed to answer; its log says why"
    headers = {VERSION_HEADER: VERSION}
    if status is http.HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    return Response(
        problem_text(status, detail),
        int(status),
        headers=headers,
        media_type="application/problem+json",
    )


def _status(problem: CloisterError) -> http.HTTPStatus:
    if isinstance(problem, ReleaseRefused | AttestationError):
        return http.HTTPStatus.FORBIDDEN
    # A platform that is away, or does not take this host's token, says nothing about the enclave.
    if isinstance(problem, StoreError | TransportError | PermissionRefused):
        return http.HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(problem, InputError):
        return http.HTTPStatus.BAD_REQUEST
    return http.HTTPStatus.INTERNAL_SERVER_ERROR
