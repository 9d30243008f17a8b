"""WebSocket through the data plane, with a client and a server that nobody here wrote.

Both are of the `websockets` package, with its own idea of RFC 6455 and of compression; curl looks
at the handshake alone. The client is the one on asyncio: that on threads reads and writes one TLS
connection at once, which OpenSSL is not made for, and loses its own handshake now and then. What a
hostile peer may try is in
``rust/devplane/tests/engine/websocket.rs``.
"""

import asyncio
import contextlib
import datetime as dt
import http
import json
import pathlib
import random
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.application import wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from cloister import crypto
from cloister.dev import DataPlane

LARGE = 1 << 20
HANDSHAKE = (
    *("-H", "Connection: Upgrade", "-H", "Upgrade: WebSocket"),
    *("-H", "Sec-WebSocket-Protocol: chat", "-H", "Sec-WebSocket-Version: 13"),
    *("-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
)


class EchoServer:
    """Says back what it hears; ``/ping`` pings first, ``/close`` closes with 4002 at once.

    Attributes:
        requests: The handshakes.
        messages: What was heard.
        closed: Code and reason that each client closed with.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.messages: list[str | bytes] = []
        self.closed: list[tuple[int, str]] = []
        self._server = serve(
            self._converse,
            "127.0.0.1",
            0,
            max_size=None,
            subprotocols=["chat"],  # type: ignore[list-item]
            process_request=self._look,
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self._server.socket.getsockname()[1]}"

    def stop(self) -> None:
        """Ends it, and every session with it."""
        self._server.shutdown()
        self._thread.join()

    def _look(self, connection: ServerConnection, request: Request) -> Response | None:
        if "upgrade" not in request.headers:
            return connection.respond(http.HTTPStatus.OK, "plain\n")
        self.requests.append(request)
        if request.path == "/forbidden":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
        return None

    def _converse(self, connection: ServerConnection) -> None:
        path = self.requests[-1].path
        if path == "/close":
            connection.close(4002, "enough")
            return
        if path == "/ping":
            answered = connection.ping("are you there").wait(10)
            connection.send("it is" if answered else "it is not")
        try:
            for message in connection:
                self.messages.append(message)
                connection.send(message)
        except ConnectionClosed:
            pass
        if connection.close_code is not None:
            self.closed.append((connection.close_code, connection.close_reason or ""))


@pytest.fixture
def server() -> Iterator[EchoServer]:
    running = EchoServer()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def plane(server: EchoServer) -> Iterator[DataPlane]:
    with DataPlane(server.address) as running:
        yield running


@contextlib.asynccontextmanager
async def session(
    plane: DataPlane,
    path: str = "/",
    *,
    headers: dict[str, str] | None = None,
    compression: str | None = "deflate",
) -> AsyncIterator[ClientConnection]:
    """A session with the plane's own key; ``headers`` takes its place."""
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    async with connect(
        plane.url.replace("https", "wss") + path,
        ssl=context,
        additional_headers={"api-key": plane.api_key} if headers is None else headers,
        compression=compression,
        subprotocols=["other", "chat"],  # type: ignore[list-item]
        max_size=None,
        proxy=None,
    ) as connection:
        yield connection


def curl(plane: DataPlane, *words: str) -> str:
    """What curl shows of an answer, head included; a tunnel is left after a moment."""
    command = ["curl", "-sS", "-i", "-N", "--http1.1", "--cacert", str(plane.ca_file)]
    command += ["--max-time", "2", "-H", f"api-key: {plane.api_key}", *words]
    return subprocess.run(command, capture_output=True, check=False).stdout.decode("latin-1")


async def refusal(
    plane: DataPlane, path: str = "/", headers: dict[str, str] | None = None
) -> Response:
    """The answer to a handshake that opens no session."""
    with pytest.raises(InvalidStatus) as caught:
        async with session(plane, path, headers=headers):
            pass
    return caught.value.response


async def said_back(client: ClientConnection, message: str | bytes) -> bool:
    """Whether a message comes back as it was sent."""
    await client.send(message)
    return await asyncio.wait_for(client.recv(), 20) == message


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_arrive_as_they_were_sent(
    plane: DataPlane, server: EchoServer, compression: str | None
) -> None:
    noise = random.Random(1).randbytes(LARGE)  # noqa: S311 - any bytes
    text = "Ä ☃ " * (LARGE // 8)
    messages: list[str | bytes] = [
        "",
        "hello",
        text,
        b"",
        b"\x00\xff",
        noise,
        text.encode(),
        noise.hex(),
    ]

    async def converse() -> None:
        async with session(plane, compression=compression) as client:
            for message in messages:
                assert await said_back(client, message)
            # Fragments, and several on their way at once.
            await client.send([noise[:10], noise[10:1000], noise[1000:]])
            for number in range(100):
                await client.send(f"{number}")
            assert await client.recv() == noise
            assert [await client.recv() for _ in range(100)] == [f"{n}" for n in range(100)]

    asyncio.run(converse())
    assert server.messages[: len(messages)] == messages


def test_the_handshake_passes_through_every_layer(plane: DataPlane, server: EchoServer) -> None:
    token = crypto.encrypt("4242", plane.app_public_key)
    headers = {"api-key": plane.api_key, "x-card": token}

    async def converse() -> str:
        async with session(plane, "/chat?room=1", headers=headers) as client:
            assert client.subprotocol == "chat"
            # What frames carry is nobody's to change.
            assert await said_back(client, token)
            assert client.response is not None
            return client.response.headers["x-evervault-ctx"]

    context = asyncio.run(converse())
    assert len(context) == 32
    (seen,) = server.requests
    assert seen.path == "/chat?room=1"
    assert seen.headers["x-evervault-ctx"] == context
    assert seen.headers["x-card"] == "4242"
    assert seen.headers["x-forwarded-proto"] == "https"
    assert "api-key" not in seen.headers


@pytest.mark.parametrize("headers", [{}, {"api-key": "ck_x_y"}], ids=["none", "wrong"])
def test_without_a_key_there_is_no_session(
    plane: DataPlane, server: EchoServer, headers: dict[str, str]
) -> None:
    answer = asyncio.run(refusal(plane, headers=headers))
    assert answer.status_code == 401
    assert "message" in json.loads(answer.body)
    assert "x-evervault-ctx" in answer.headers
    assert server.requests == []

    async def converse() -> None:
        async with session(plane) as client:
            assert await said_back(client, "hello")

    asyncio.run(converse())


def test_what_the_application_refuses_is_its_own_answer(
    plane: DataPlane, server: EchoServer
) -> None:
    answer = asyncio.run(refusal(plane, "/forbidden"))
    assert (answer.status_code, answer.body) == (403, b"not you\n")
    assert len(server.requests) == 1


def test_pings_are_answered_by_the_other_end(plane: DataPlane) -> None:
    async def converse() -> None:
        async with session(plane, "/ping") as client:
            assert await asyncio.wait_for(client.recv(), 10) == "it is"
            await asyncio.wait_for(await client.ping("and you"), 10)

    asyncio.run(converse())


def test_either_side_closes_with_its_own_code(plane: DataPlane, server: EchoServer) -> None:
    async def converse() -> None:
        async with session(plane) as client:
            await client.close(4001, "good-bye")
            assert client.close_code == 4001
        async with session(plane, "/close") as client:
            with pytest.raises(ConnectionClosedError) as caught:
                await asyncio.wait_for(client.recv(), 10)
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4002, "enough")

    asyncio.run(converse())
    wait_until(lambda: server.closed == [(4001, "good-bye")])
    wait_until(lambda: plane.stats()["active_websockets"] == 0)
    assert plane.stats()["websockets"] == 2


def test_many_sessions_at_once_do_not_meet(plane: DataPlane) -> None:
    async def converse(number: int, together: asyncio.Barrier) -> bool:
        async with session(plane) as client:
            await together.wait()
            return all([await said_back(client, f"{number}: {turn}") for turn in range(20)])

    async def everybody() -> list[bool]:
        together = asyncio.Barrier(40)
        return await asyncio.gather(*(converse(number, together) for number in range(40)))

    assert all(asyncio.run(everybody()))


def test_curl_sees_the_switch_and_the_refusals(plane: DataPlane, server: EchoServer) -> None:
    switched = curl(plane, *HANDSHAKE, plane.url)
    head, _, _ = switched.partition("\r\n\r\n")
    lines = head.lower().split("\r\n")
    assert lines[0].startswith("http/1.1 101 ")
    assert "upgrade: websocket" in lines
    assert "connection: upgrade" in lines
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert len(server.requests) == 1
    refusals = (("-d", "body"), ("-X", "POST"), ("-H", "Sec-WebSocket-Key: twice"))
    for line in refusals:
        refused = curl(plane, *line, *HANDSHAKE, plane.url)
        assert refused.startswith("HTTP/1.1 400 "), line
        assert '{"message":' in refused
        assert "x-evervault-ctx: " in refused
    # Other upgrades are for a connection that ends here: the application hears of none.
    others: tuple[tuple[str, ...], ...] = (
        (),
        ("-H", "Connection: Upgrade", "-H", "Upgrade: h2c"),
        ("--no-alpn", "--http1.0", *HANDSHAKE),
    )
    for words in others:
        plain = curl(plane, *words, plane.url)
        assert " 200 " in plain.split("\r\n")[0], words
        assert plain.endswith("plain\n")
    assert len(server.requests) == 1


def test_a_session_is_one_record_also_when_a_drain_ends_it(
    server: EchoServer, tmp_path: pathlib.Path
) -> None:
    logs = tmp_path / "trx.ndjson"

    def records() -> list[dict[str, object]]:
        text = logs.read_text(encoding="utf-8") if logs.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def converse(plane: DataPlane) -> None:
        async with session(plane, compression=None) as client:
            assert await said_back(client, b"x" * 1000)
            assert records() == []

    async def be_drained(plane: DataPlane) -> None:
        async with session(plane, "/drained", compression=None) as client:
            assert await said_back(client, "hello")
            await asyncio.to_thread(plane.drain, dt.timedelta(seconds=0.3))
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(client.recv(), 10)

    with DataPlane(server.address, logs=logs) as plane:
        asyncio.run(converse(plane))
        wait_until(lambda: len(records()) == 1)
        asyncio.run(be_drained(plane))
        first, last = records()
    for record in (first, last):
        assert record["requestType"] == "Websocket"
        assert record["responseCode"] == 101
    assert last["uri"] == "/drained"
    assert isinstance(first["bytesIn"], int)
    assert isinstance(first["elapsed"], float)
    # One frame there and one back, their heads, and a close frame.
    assert 1000 < first["bytesIn"] < 1100
