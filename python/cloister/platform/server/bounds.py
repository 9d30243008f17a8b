"""How much the server takes, and what it writes down of each request.

Both are ASGI wrappers around the application: they see a request before anything of it is parsed.
"""

import asyncio
import json
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.platform.clock import Clock
from cloister.platform.server.refusals import body

log = logging.getLogger("cloister.platform.access")
BODY_SECONDS = 30.0


class BodyBound:
    """Refuses a body that is longer than a bound, before it is held in memory, or that takes long.

    Args:
        app: What is behind it.
        max_bytes: The bound.
        seconds: From the head to the end of the body.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        taken = 0
        is_whole = is_refused = False
        reason: tuple[int, str] | None = None
        until = asyncio.get_running_loop().time() + self._seconds

        async def bounded() -> Message:
            nonlocal taken, is_whole, reason
            try:
                # What comes behind the body is the end of the connection: that has no deadline.
                async with asyncio.timeout_at(None if is_whole else until):
                    message = await receive()
            except TimeoutError:
                reason = (408, f"a body is whole within {self._seconds:.0f} s")
                raise _OutOfBounds from None
            taken += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if taken > self._max_bytes:
                reason = (413, f"a body is at most {self._max_bytes} bytes long")
                raise _OutOfBounds
            return message

        async def unless_refused(message: Message) -> None:
            # The framework makes an answer of its own of whatever ends the reading of a body.
            nonlocal is_refused
            if reason is None:
                await send(message)
            elif not is_refused:
                is_refused = True
                await self._refuse(send, *reason)

        if not announced.isdigit() or int(announced) > self._max_bytes:
            await self._refuse(send, 413, f"a body is at most {self._max_bytes} bytes long")
            return
        await self._app(scope, bounded, unless_refused)

    async def _refuse(self, send: Send, status: int, message: str) -> None:
        text = json.dumps(body("InputError", message))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(text)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


class _OutOfBounds(Exception):
    """The body is longer than the bound, or slower."""


class AccessLog:
    """Writes a line of JSON for each request: the call by its pattern, and the token by its id.

    Neither the client's address, nor that of the request as it was sent, nor a header is in it: who
    asks is the token's id, and a secret that somebody puts there by mistake is not written down.

    Args:
        app: What is behind it.
        clock: The time of a line.
    """

    def __init__(self, app: ASGIApp, *, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            # It was answered and logged by its place; its text may repeat what was sent.
            if not status:
                raise
        finally:
            route = scope.get("route")
            line = {
                "at": self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "method": scope["method"] if scope["method"] in METHODS else "other",
                "call": getattr(route, "path", None),
                "status": status,
                "ms": round((time.monotonic() - begun) * 1000),
                "token": scope.get("state", {}).get("token_id"),
            }
            log.info("%s", json.dumps(line))


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_BODY_BYTES = 1 << 20  # wire.md §2; a full set of variables is 768 KiB in base64
