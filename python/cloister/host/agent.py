"""The Python half of the agent API: what an enclave asks its host for (wire.md §2).

It is reached over a Unix socket of the host's own, by the Rust half only, which ends the enclave's
connection, bounds it, takes the logs, and says in ``x-cloister-enclave`` who asks. What the enclave
says is a stranger's word: bodies are bounded, fields checked, and nothing of it is logged as it is.

The host cannot read what it hands over. Documents go to the platform as they come and bundles come
back sealed.
"""

import asyncio
import base64
import binascii
import datetime as dt
import functools
import http
import json
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
import cbor2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloister.errors import CloisterError, TransportError
from cloister.host.objects import ObjectStore, PreconditionFailed
from cloister.host.orders import OrderBook
from cloister.host.ports import CertificateAuthority, Clock, EventSink, Platform, utc_now
from cloister.host.problems import VERSION, VERSION_HEADER, Problem, answer_problem

MAX_BODY_BYTES = 1 << 20  # rust/wire agent.rs MAX_BODY_BYTES
BUNDLE_POLL = dt.timedelta(seconds=25)  # rust/wire agent.rs BUNDLE_POLL_MS
LOOK_EVERY = dt.timedelta(seconds=1)
MAX_DOMAINS = 100  # names in one certificate (Let's Encrypt, rate limits page)
MAX_EVENT_CHARACTERS = 512
ENCLAVE_HEADER = "x-cloister-enclave"
LOOK_FOR_END_SECONDS = 0.1
OF_HOST = "host."  # kinds of events that a host tells of an enclave
_T = TypeVar("_T")


def agent_app(  # noqa: PLR0913 - the parts, keyword-only
    platform: Platform,
    certificates: CertificateAuthority,
    *,
    objects: ObjectStore,
    events: EventSink,
    clock: Clock = utc_now,
    bundle_poll: dt.timedelta = BUNDLE_POLL,
    look_every: dt.timedelta = LOOK_EVERY,
    is_ending: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Makes the application.

    Args:
        platform: Where challenges and bundles come from.
        certificates: Who signs an enclave's certificate.
        objects: Where its objects are kept.
        events: Told of each event, after its text was made printable.
        clock: The time, for the platform and the authority.
        bundle_poll: How long ``GET /v1/bundle`` waits for a newer one.
        look_every: How long the platform is let wait at a time.
        is_ending: Whether the host stops: then nobody is kept waiting.
    """
    calls = _Calls(
        platform,
        OrderBook(certificates),
        objects,
        events,
        clock,
        bundle_poll,
        look_every,
        is_ending,
    )
    return Starlette(
        routes=[
            Route("/v1/challenge", calls.challenge, methods=["POST"]),
            Route("/v1/provision", calls.provision, methods=["POST"]),
            Route("/v1/bundle", calls.bundle, methods=["GET"]),
            Route("/v1/objects/{name}", calls.object, methods=["GET", "PUT", "DELETE"]),
            Route("/v1/objects/{name}/head", calls.head, methods=["POST"]),
            Route("/v1/acme/orders", calls.place_order, methods=["POST"]),
            Route("/v1/acme/orders/{name}", calls.order, methods=["GET"]),
            Route("/v1/events", calls.event, methods=["POST"]),
        ],
        exception_handlers={
            Problem: answer_problem,
            CloisterError: answer_problem,
            http.HTTPStatus.NOT_FOUND: _no_such_call,
            http.HTTPStatus.METHOD_NOT_ALLOWED: _no_such_method,
            Exception: answer_problem,
        },
    )


class _Calls:
    """The calls of wire.md §2. State: which boot each enclave was released to last."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts, once, from the function above
        self,
        platform: Platform,
        orders: OrderBook,
        objects: ObjectStore,
        events: EventSink,
        clock: Clock,
        bundle_poll: dt.timedelta,
        look_every: dt.timedelta,
        is_ending: Callable[[], bool],
    ) -> None:
        self._platform = platform
        self._orders = orders
        self._objects = objects
        self._events = events
        self._clock = clock
        self._bundle_poll = bundle_poll
        self._look_every = look_every
        self._is_ending = is_ending
        self._boot_keys: dict[uuid.UUID, bytes] = {}
        self._refusals: dict[uuid.UUID, str] = {}

    async def challenge(self, request: Request) -> Response:
        enclave = _enclave(request)
        made = await self._released(enclave, self._platform.issue_challenge, enclave)
        return _json({"challenge": _encode(made)})

    async def provision(self, request: Request) -> Response:
        enclave = _enclave(request)
        document = _decode(_field(await _body_json(request), "attestation_doc", str))
        sealed = await self._released(
            enclave, self._platform.provision, enclave, document, now=self._clock()
        )
        self._refusals.pop(enclave, None)
        # The platform has verified the document, so its key is the one that was released to.
        self._boot_keys[enclave] = _boot_key(document)
        return _json({"bundle": _encode(sealed)})

    async def bundle(self, request: Request) -> Response:
        enclave = _enclave(request)
        after = request.query_params.get("after", "")
        if not (after.isascii() and after.isdigit() and len(after) < len(str(1 << 64))):
            raise Problem(http.HTTPStatus.BAD_REQUEST, "`after` is not a whole number")
        boot_key = self._boot_keys.get(enclave)
        if boot_key is None:
            raise Problem(http.HTTPStatus.CONFLICT, "this boot was not provisioned here")
        until = self._clock() + self._bundle_poll
        while True:
            now = self._clock()
            sealed = await self._released(
                enclave,
                self._platform.newer_bundle,
                enclave,
                int(after),
                boot_key=boot_key,
                now=now,
            )
            if sealed is not None:
                return _json({"bundle": _encode(sealed)})
            left = until - now
            is_over = left <= dt.timedelta(0) or self._is_ending()
            if is_over or await request.is_disconnected():
                return _empty(http.HTTPStatus.NO_CONTENT)
            # In short steps: a renewal falls due without a change.
            step = min(left, self._look_every).total_seconds()
            await self._wait_for_change(enclave, int(after), step)

    async def _released(
        self,
        enclave: uuid.UUID,
        call: Callable[..., _T],
        *arguments: Any,  # noqa: ANN401 - of the call
        **named: Any,  # noqa: ANN401
    ) -> _T:
        """What the platform says; why it refuses is told as an event, once for each reason.

        The enclave is told the same, and can tell nobody: it is not provisioned.
        """
        try:
            return await run_in_threadpool(call, *arguments, **named)
        except CloisterError as problem:
            is_away = isinstance(problem, TransportError)
            if not is_away and self._refusals.get(enclave) != problem.message:
                self._refusals[enclave] = problem.message
                await run_in_threadpool(
                    self._events, enclave, f"{OF_HOST}refused", _printable(problem.message)
                )
            raise

    async def _wait_for_change(self, enclave: uuid.UUID, after: int, timeout_s: float) -> None:
        """Waits at the platform, unless the host stops: then the call is left to itself."""
        call = functools.partial(self._platform.wait_for_change, enclave, after, timeout_s)
        waiting = asyncio.ensure_future(anyio.to_thread.run_sync(call, abandon_on_cancel=True))
        try:
            while not (await asyncio.wait([waiting], timeout=LOOK_FOR_END_SECONDS))[0]:
                if self._is_ending():
                    return
            waiting.result()
        finally:
            waiting.cancel()

    async def object(self, request: Request) -> Response:
        enclave, name = _enclave(request), request.path_params["name"]
        conditions = {
            "if_match": request.headers.get("if-match"),
            "if_none_match": request.headers.get("if-none-match"),
        }
        try:
            if request.method == "PUT":
                body = await _body(request)
                tag = await run_in_threadpool(
                    self._objects.write, enclave, name, body, **conditions
                )
                return _empty(http.HTTPStatus.NO_CONTENT, etag=tag)
            if request.method == "DELETE":
                removed = await run_in_threadpool(
                    self._objects.remove, enclave, name, if_match=conditions["if_match"]
                )
                if not removed:
                    raise Problem(http.HTTPStatus.NOT_FOUND, "there is no such object")
                return _empty(http.HTTPStatus.NO_CONTENT)
        except PreconditionFailed as problem:
            raise Problem(http.HTTPStatus.PRECONDITION_FAILED, problem.message) from problem
        return await self._read_object(enclave, name, conditions["if_none_match"])

    async def head(self, request: Request) -> Response:
        enclave = _enclave(request)
        said = await _body_json(request)
        boot_key = self._boot_keys.get(enclave)
        if boot_key is None:
            raise Problem(http.HTTPStatus.FORBIDDEN, "this boot was not provisioned here")
        recorded = await run_in_threadpool(
            self._platform.record_object,
            enclave,
            boot_key=boot_key,
            name=request.path_params["name"],
            version=_field(said, "version", int),
            sha256=_decode(_field(said, "sha256", str)),
            proof=_decode(_field(said, "proof", str)),
        )
        if not recorded:
            raise Problem(http.HTTPStatus.CONFLICT, "the platform has recorded another object")
        return _empty(http.HTTPStatus.NO_CONTENT)

    async def _read_object(
        self, enclave: uuid.UUID, name: str, if_none_match: str | None
    ) -> Response:
        found = await run_in_threadpool(self._objects.read, enclave, name)
        if found is None:
            raise Problem(http.HTTPStatus.NOT_FOUND, "there is no such object")
        body, tag = found
        if if_none_match is not None and if_none_match in {"*", tag}:
            return _empty(http.HTTPStatus.NOT_MODIFIED, etag=tag)
        return Response(
            body,
            headers={"etag": tag, VERSION_HEADER: VERSION},
            media_type="application/octet-stream",
        )

    async def place_order(self, request: Request) -> Response:
        enclave = _enclave(request)
        asked = await _body_json(request)
        csr = _decode(_field(asked, "csr", str))
        domains = _field(asked, "domains", list)
        if len(domains) > MAX_DOMAINS or not all(isinstance(name, str) for name in domains):
            raise Problem(
                http.HTTPStatus.BAD_REQUEST, f"`domains` is not at most {MAX_DOMAINS} names"
            )
        name = self._orders.place(enclave)
        signing = BackgroundTask(
            self._orders.fulfil, enclave, name, csr, domains, now=self._clock()
        )
        return _json({"id": name}, status=http.HTTPStatus.ACCEPTED, background=signing)

    async def order(self, request: Request) -> Response:
        state = self._orders.state(_enclave(request), request.path_params["name"])
        if state is None:
            raise Problem(http.HTTPStatus.NOT_FOUND, "there is no such order")
        return _json(state)

    async def event(self, request: Request) -> Response:
        enclave = _enclave(request)
        told = await _body_json(request)
        kind = _printable(_field(told, "kind", str))
        if kind.startswith(OF_HOST):
            raise Problem(http.HTTPStatus.BAD_REQUEST, f"events `{OF_HOST}…` are the host's own")
        message = _printable(_field(told, "message", str))
        await run_in_threadpool(self._events, enclave, kind, message)
        return _empty(http.HTTPStatus.NO_CONTENT)


def _enclave(request: Request) -> uuid.UUID:
    """Who asks: set by the Rust half, from where the stream came from."""
    try:
        return uuid.UUID(request.headers.get(ENCLAVE_HEADER, ""))
    except ValueError:
        raise Problem(http.HTTPStatus.FORBIDDEN, "this socket is for the host's own use") from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Problem(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a body is at most 1 MiB long")
    return bytes(body)


async def _body_json(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await _body(request))
    except (ValueError, RecursionError):
        raise Problem(http.HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Problem(http.HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    return value


def _field(body: dict[str, Any], name: str, kind: type[_T]) -> _T:
    value = body.get(name)
    if not isinstance(value, kind):
        raise Problem(http.HTTPStatus.BAD_REQUEST, f"`{name}` is missing or of another type")
    return value


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Problem(http.HTTPStatus.BAD_REQUEST, "a value is not base64") from None


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _boot_key(document: bytes) -> bytes:
    """The ``public_key`` of a document that was verified (COSE_Sign1: the third item's map)."""
    payload = cbor2.loads(cbor2.loads(document)[2])
    key = payload["public_key"]
    if not isinstance(key, bytes):
        raise TypeError("a verified provisioning document has a public key")
    return key


def _printable(text: str) -> str:
    shown = "".join(char if char.isprintable() else "�" for char in text[:MAX_EVENT_CHARACTERS])
    return shown + ("…" if len(text) > MAX_EVENT_CHARACTERS else "")


def _json(
    body: dict[str, Any],
    *,
    status: http.HTTPStatus = http.HTTPStatus.OK,
    background: BackgroundTask | None = None,
) -> Response:
    return JSONResponse(body, int(status), headers={VERSION_HEADER: VERSION}, background=background)


def _empty(status: http.HTTPStatus, *, etag: str | None = None) -> Response:
    headers = {VERSION_HEADER: VERSION} | ({"etag": etag} if etag else {})
    return Response(status_code=int(status), headers=headers)


def _no_such_call(request: Request, _: Exception) -> Response:
    return answer_problem(request, Problem(http.HTTPStatus.NOT_FOUND, "there is no such call"))


def _no_such_method(request: Request, _: Exception) -> Response:
    return answer_problem(
        request, Problem(http.HTTPStatus.METHOD_NOT_ALLOWED, "this call has another method")
    )
