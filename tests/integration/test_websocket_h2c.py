"""WebSocket towards a user process that speaks HTTP/2 in clear (RFC 8441, both ways).

The server is hypercorn. Clients speak HTTP/1.1, with the `websockets` package, and HTTP/2, with
frames of `wsproto`: what one side opens with a switch of protocols the other opens with CONNECT.
"""

import asyncio
import pathlib
import ssl
from collections.abc import Iterator

import pytest
from tests.integration.test_h2c import behind_hypercorn
from tests.integration.test_websocket_http2 import Session, client_of
from tests.support.application import wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from wsproto.frame_protocol import Opcode

from cloister.dev import DataPlane

# Says back what it hears, behind what it was asked with; `/forbidden` refuses.
APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})
        return
    if scope["type"] != "websocket":
        return
    await receive()
    if scope["path"] == "/forbidden":
        await send({"type": "websocket.close", "code": 1008})
        return
    protocols = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": protocols[0] if protocols else None})
    names = sorted(name.decode() for name, _ in scope["headers"])
    await send({"type": "websocket.send",
                "text": " ".join([scope["http_version"], scope["path"], *names])})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with behind_hypercorn(tmp_path_factory.mktemp("hypercorn"), APPLICATION) as plane:
        yield plane


def trust(ca_file: pathlib.Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file))


def test_a_client_of_http1_opens_a_stream(plane: DataPlane) -> None:
    async def converse() -> None:
        uri = plane.url.replace("https", "wss") + "/chat?x"
        headers = {"api-key": plane.api_key}
        tls = trust(plane.ca_file)
        async with connect(
            uri, ssl=tls, additional_headers=headers, subprotocols=["chat"], max_size=None
        ) as client:  # type: ignore[call-overload]
            assert client.subprotocol == "chat"
            version, path, *names = str(await client.recv()).split()
            assert (version, path) == ("2", "/chat")
            assert "x-evervault-ctx" in names
            assert not {"api-key", "upgrade", "connection", "sec-websocket-key"} & set(names)
            for message in ("hello", "Ä ☃ " * 1000, b"\0\xff", b"z" * 1_000_000):
                await client.send(message)
                assert await client.recv() == message
        assert client.close_code == 1000

    asyncio.run(asyncio.wait_for(converse(), 20))
    wait_until(lambda: plane.stats()["active_websockets"] == 0, 5)


def test_a_client_of_http2_opens_a_stream(plane: DataPlane) -> None:
    with client_of(plane) as client:
        session = Session(client, plane.api_key, b"/chat")
        assert session.stream.status == 200
        opcode, seen = session.receive()
        assert opcode is Opcode.TEXT
        assert str(seen).split()[:2] == ["2", "/chat"]
        for message in ("hello", "Ä ☃ " * 1000, b"\0\xff" * 20_000):
            session.send(message)
            assert session.receive()[1] == message
        session.close()
        assert session.receive() == (Opcode.CLOSE, "1000")
    wait_until(lambda: plane.stats()["active_websockets"] == 0, 5)


def test_a_handshake_that_the_process_refuses_stays_http(plane: DataPlane) -> None:
    async def refused() -> int:
        uri = plane.url.replace("https", "wss") + "/forbidden"
        try:
            async with connect(
                uri, ssl=trust(plane.ca_file), additional_headers={"api-key": plane.api_key}
            ):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    assert asyncio.run(asyncio.wait_for(refused(), 20)) == 403
    with client_of(plane) as client:
        assert Session(client, plane.api_key, b"/forbidden").stream.status == 403
        assert Session(client, None, b"/chat").stream.status == 401
