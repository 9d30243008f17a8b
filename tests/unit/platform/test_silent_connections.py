"""A connection that sends no whole request is cut, and one that waits for its answer is not."""

import asyncio
import contextlib
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cloister.platform.server.serve import BoundedServer

SILENT_SECONDS = 1.5


async def slow(_: Request) -> PlainTextResponse:
    """Answers after a connection without a request would have been cut."""
    await asyncio.sleep(3 * SILENT_SECONDS)
    return PlainTextResponse("done")


async def seconds_until_cut(port: int, sends: bytes) -> float:
    """How long the server keeps a connection that sends this and no more."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sends)
    await writer.drain()
    with contextlib.suppress(ConnectionError):  # it was cut, not closed
        await reader.read()
    writer.close()
    return time.monotonic() - begun


async def answer_to(port: int, sends: bytes) -> bytes:
    """What the server answers, to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sends)
    answer = await reader.read()
    writer.close()
    return answer


async def scenario() -> tuple[list[float], bytes]:
    """Two silent connections, and one whose request takes long."""
    app = Starlette(routes=[Route("/slow", slow)])
    config = uvicorn.Config(app, port=0, log_config=None, http="h11", lifespan="off")
    started = asyncio.Event()
    server = BoundedServer(config, lambda: None, started.set, silent_seconds=SILENT_SECONDS)
    serving = asyncio.ensure_future(server.serve())
    await started.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    request = b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    *silent, answer = await asyncio.gather(
        seconds_until_cut(port, b""),
        seconds_until_cut(port, b"GET / HTTP/1.1\r\nx-slow: "),
        answer_to(port, request),
    )
    server.should_exit = True
    await serving
    return silent, answer


def test_silence_is_cut_and_work_is_not() -> None:
    silent, answer = asyncio.run(scenario())
    assert all(SILENT_SECONDS <= seconds < 3 * SILENT_SECONDS for seconds in silent), silent
    assert answer.endswith(b"done")
