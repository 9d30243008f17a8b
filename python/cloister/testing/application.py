"""Applications behind a simulated enclave, and the server that runs one in this process.

An application is an ASGI callable, whatever made it: a framework, :func:`wsgi` around one of WSGI,
or :func:`handler` around a function.
"""

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from cloister.errors import RunnerError, UsageError

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

Asgi = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""An application as ASGI has it (asgi.readthedocs.io, version 3)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the application got it: opened, and without the API key.

    Args:
        method: In upper case.
        path: Without the query, percent-decoded.
        query: What is after the question mark, as it came.
        headers: In their order; names in lower case.
        body: The whole of it.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case; ``None`` without one."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:  # noqa: ANN401 - whatever is in the body
        """The body as JSON.

        Raises:
            ValueError: It is none.
        """
        return json.loads(self.body)


class Handler:
    """An application around a function. Made by :func:`handler`.

    Args:
        answer: From a request to what is answered.
    """

    def __init__(self, answer: Callable[[Request], object]) -> None:
        self._answer = answer
        self._seen: list[Request] = []

    @property
    def seen(self) -> list[Request]:
        """The requests that arrived, in their order; a copy."""
        return list(self._seen)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """As ASGI has it; of the protocols of ASGI it speaks ``http`` alone."""
        if scope["type"] != "http":
            raise RuntimeError(f"a handler speaks http, not {scope['type']}")
        incoming = StarletteRequest(scope, receive)
        request = Request(
            method=incoming.method,
            # Not those of `incoming.url`: it encodes the path again, as far as a URL needs.
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=tuple(incoming.headers.items()),
            body=await incoming.body(),
        )
        self._seen.append(request)
        answer = _response(await run_in_threadpool(self._answer, request))
        await answer(scope, receive, send)


def handler(answer: Callable[[Request], object]) -> Handler:
    """An application of one function, which runs on a thread for each request.

    What it returns is the answer: a :class:`starlette.responses.Response` as it is, ``bytes`` or
    ``str`` as a body, anything else as JSON. An exception is a 500.
    """
    return Handler(answer)


def wsgi(app: Callable[..., Any]) -> Asgi:
    """An application of a WSGI one, such as Flask's or Django's; needs ``cloister[testing]``.

    Raises:
        UsageError: ``a2wsgi``, which comes with ``cloister[testing]``, is not there.
    """
    try:
        from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - of an extra
    except ImportError:
        raise UsageError(
            "WSGI applications need `a2wsgi`", hint="pip install 'cloister[testing]'"
        ) from None
    # Its types name each message; ours are those of every ASGI application.
    return cast("Asgi", WSGIMiddleware(app))


def echo(request: Request) -> object:
    """What an enclave without an application of yours answers: the request, as JSON."""
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.body.decode(errors="replace"),
    }


class Server:
    """An ASGI application on a port of the loopback and a thread of this process.

    Args:
        app: The application; its ``lifespan`` is run when it has one.
        timeout_seconds: How long it may take to start, and to end.

    Raises:
        RunnerError: It does not start.
    """

    def __init__(self, app: Asgi, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        host, port = self._listening.getsockname()
        self.address = f"{host}:{port}"
        self._server = _Announcing(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="auto",
                loop="asyncio",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        # A request that never ends must not keep the process of the tests from its end.
        self._thread = threading.Thread(target=self._run, name="cloister-app", daemon=True)
        self._thread.start()
        if not self._server.decided.wait(timeout_seconds) or not self._server.started:
            self.stop()
            raise RunnerError(
                "the application did not start",
                hint="its `lifespan` failed or takes too long; logger `uvicorn.error` says more",
            )

    def _run(self) -> None:
        # uvicorn ends its process when an application does not start; here it is a thread.
        with contextlib.suppress(SystemExit):
            self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """Ends it; requests that are underway get a second. Waits no longer than the timeout."""
        self._server.should_exit = True
        self._thread.join(self._timeout_seconds)
        self._listening.close()


class _Announcing(uvicorn.Server):
    """Says when it has started, or failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.decided = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.decided.set()


def _response(answer: object) -> Response:
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, bytes):
        return Response(answer, media_type="application/octet-stream")
    if isinstance(answer, str):
        return PlainTextResponse(answer)
    return JSONResponse(answer)


_BACKLOG = 1024
