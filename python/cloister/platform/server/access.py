"""Who asks, and what they may: the token of a request against the scopes of a call.

A token travels in ``authorization: Bearer cp_…`` alone, never in an address. What a token may not
see it cannot tell from what does not exist: both are refused with the same words.
"""

from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cloister.platform.owner import Owner
from cloister.platform.server.parts import Parts
from cloister.platform.server.refusals import Refused
from cloister.platform.tokens import Right, TokenRecord

_bearer = HTTPBearer(auto_error=False, description="A token of `cloister platform token create`.")


def parts_of(request: Request) -> Parts:
    """What the calls work with."""
    parts = request.app.state.parts
    if not isinstance(parts, Parts):
        raise TypeError("the application has no parts")
    return parts


def caller(
    request: Request,
    parts: Annotated[Parts, Depends(parts_of)],
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> TokenRecord:
    """The token of the request.

    Raises:
        Refused: 401: there is none, or it does not work.
    """
    record = None if shown is None else parts.tokens.find(shown.credentials)
    if record is None:
        raise Refused(
            401,
            "Unauthenticated",
            "a token is missing, unknown, expired or revoked",
            hint="CLOISTER_API_KEY holds a token of `cloister platform token create`",
        )
    request.state.token_id = record.id
    return record


Caller = Annotated[TokenRecord, Depends(caller)]
TheParts = Annotated[Parts, Depends(parts_of)]


def owner_only(token: Caller, parts: TheParts) -> Owner:
    """The owner's calls, for a token of scope ``owner``."""
    if not token.is_owner:
        raise forbidden(token)
    return parts.owner


def of_app(right: Right) -> Callable[..., Owner]:
    """The owner's calls, for a token with this right for the ``app`` of the address."""

    def check(app: UUID, token: Caller, parts: TheParts) -> Owner:
        if not token.may(right, app):
            raise forbidden(token)
        return parts.owner

    return check


def of_enclave(right: Right) -> Callable[..., Owner]:
    """The owner's calls, for a token with this right for the app of the ``enclave``."""

    def check(enclave: UUID, token: Caller, parts: TheParts) -> Owner:
        app = parts.owner.app_of(enclave)
        if app is None and token.is_owner:
            return parts.owner
        if app is None or not token.may(right, app):
            raise forbidden(token)
        return parts.owner

    return check


def check_relay(token: TokenRecord, enclave: UUID) -> None:
    """Whether a host with this token carries calls of this enclave.

    Raises:
        Refused: 403.
    """
    if not token.may_relay(enclave):
        raise forbidden(token)


def forbidden(token: TokenRecord) -> Refused:
    """What a token may not, in the same words for everything."""
    scopes = ", ".join(token.scopes[:MAX_SHOWN]) + (", …" if len(token.scopes) > MAX_SHOWN else "")
    return Refused(
        403,
        "Forbidden",
        "the token has no scope for this, or there is no such thing",
        hint=f"the token has {scopes}; an owner of the platform can make another",
    )


MAX_SHOWN = 4
