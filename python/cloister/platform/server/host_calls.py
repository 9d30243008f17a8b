"""What a host carries for its enclaves (wire.md, section 5): sealed or random, and nothing else.

Each call names the enclave, and the token says whether this host may speak for it. The time is the
platform's own: a host that sets its clock back renews nothing.
"""

import asyncio
import base64
import binascii
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from cloister.errors import InputError
from cloister.platform.server import models
from cloister.platform.server.access import Caller, TheParts, check_relay
from cloister.platform.server.refusals import Refused

router = APIRouter(tags=["host"])


@router.post("/v1/challenge")
def challenge(asked: models.FromHost, token: Caller, parts: TheParts) -> models.Challenge:
    """A challenge for a boot of an enclave: valid once, for 60 s."""
    check_relay(token, asked.enclave)
    made = parts.platform.issue_challenge(asked.enclave)
    return models.Challenge(challenge=base64.b64encode(made).decode())


@router.post("/v1/provision")
def provision(asked: models.Provision, token: Caller, parts: TheParts) -> models.Bundle:
    """The first bundle of a boot, when its document proves a registered image."""
    check_relay(token, asked.enclave)
    try:
        document = base64.b64decode(asked.attestation_doc, validate=True)
    except (ValueError, binascii.Error):
        raise InputError("`attestation_doc` is not base64") from None
    sealed = parts.platform.provision(asked.enclave, document)
    return models.Bundle(bundle=base64.b64encode(sealed).decode())


@router.get("/v1/bundle", responses={204: {"description": "There is nothing newer."}})
async def bundle(  # noqa: PLR0913, PLR0917 - parameters of the address
    request: Request,
    enclave: UUID,
    after: Annotated[int, Query(ge=0, lt=1 << 63)],
    boot_key: Annotated[str, Query(pattern="^[0-9a-f]{64}$")],
    token: Caller,
    parts: TheParts,
    wait: Annotated[float, Query(ge=0, le=25, description="Seconds.")] = 0,
) -> Response:
    """The bundle of a boot, when it is newer than ``after`` or due to be renewed.

    Waits for one for up to ``wait`` seconds.
    """
    check_relay(token, enclave)
    key = bytes.fromhex(boot_key)
    newer = parts.platform.newer_bundle
    sealed = await run_in_threadpool(newer, enclave, after, boot_key=key)
    if sealed is None and wait:
        waiting = asyncio.ensure_future(parts.versions.wait(enclave, after, wait))
        await _or_gone(request, waiting)
        await run_in_threadpool(_check_still_valid, parts, token.id)
        sealed = await run_in_threadpool(newer, enclave, after, boot_key=key)
    if sealed is None:
        return Response(status_code=204, headers={"cache-control": "no-store"})
    shown = models.Bundle(bundle=base64.b64encode(sealed).decode())
    return Response(
        shown.model_dump_json(),
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )


@router.get("/v1/desired")
def desired(enclave: UUID, token: Caller, parts: TheParts) -> models.Desired:
    """What a host is to run of an enclave: its active deployments, the newest first."""
    check_relay(token, enclave)
    return models.Desired(
        deployments=[
            models.DesiredDeployment(
                id=one.id,
                pcrs={str(index): value.hex() for index, value in sorted(one.pcrs.items())},
            )
            for one in parts.platform.active_deployments(enclave)
        ]
    )


@router.post("/v1/events", status_code=204)
def event(told: models.Event, token: Caller, parts: TheParts) -> None:
    """Something that happened to an enclave, as the host tells it."""
    check_relay(token, told.enclave)
    parts.platform.record_event(told.enclave, told.kind, told.message)


@router.post("/v1/objects/head")
def object_head(told: models.ObjectHead, token: Caller, parts: TheParts) -> models.Recorded:
    """Which sealed object is the current one of its name, as an enclave of the image proves."""
    check_relay(token, told.enclave)
    recorded = parts.platform.record_object(
        told.enclave,
        boot_key=bytes.fromhex(told.boot_key),
        name=told.name,
        version=told.version,
        sha256=bytes.fromhex(told.sha256),
        proof=bytes.fromhex(told.proof),
    )
    return models.Recorded(recorded=recorded)


async def _or_gone(request: Request, waiting: asyncio.Future[bool]) -> None:
    """Waits for the end of ``waiting``, which is given up when nobody listens any more."""
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK_FOR_CALLER_SECONDS))[0]:
            if await request.is_disconnected():
                raise Refused(499, "Gone", "the caller is gone")
    finally:
        waiting.cancel()


def _check_still_valid(parts: TheParts, token_id: str) -> None:
    """A token that was revoked during a long poll gets nothing at its end."""
    if not parts.tokens.is_active(token_id):
        raise Refused(401, "Unauthenticated", "the token was revoked or has expired")


LOOK_FOR_CALLER_SECONDS = 5
