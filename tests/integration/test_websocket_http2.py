"""WebSocket over HTTP/2 (RFC 8441): frames of `wsproto` on streams made by hand.

The server is that of `websockets`, over HTTP/1. Several sessions and requests share a connection.
"""

import datetime as dt
import json
import pathlib
import random
from collections.abc import Iterator

import pytest
from tests.integration.test_websocket import EchoServer
from tests.support.application import wait_until
from tests.support.raw_http2 import MAX_FRAME, RawHttp2, get, reset
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from cloister.dev import DataPlane

ENABLE_CONNECT_PROTOCOL = 8


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


class Session:
    """One WebSocket on one stream."""

    def __init__(
        self,
        client: RawHttp2,
        key: str | None,
        path: bytes = b"/",
        *,
        protocol: bytes = b"websocket",
    ) -> None:
        self.client = client
        self._frames = FrameProtocol(client=True, extensions=[])
        self._taken = 0
        offered = (b"sec-websocket-protocol", b"other, chat")
        head = get(key or "", path, (b"sec-websocket-version", b"13"), offered)
        head = [
            field for field in head if field[0] != b":method" and (key or field[0] != b"api-key")
        ]
        head = [(b":method", b"CONNECT"), (b":protocol", protocol), *head]
        self.number = client.ask(head, is_over=False)
        self.stream = client.streams[self.number]
        client.wait(lambda: self.stream.status is not None or self.stream.is_done)

    def send(self, payload: str | bytes) -> None:
        """Sends one message."""
        wire = self._frames.send_data(payload, fin=True)
        for at in range(0, len(wire), MAX_FRAME):
            self.client.data(self.number, wire[at : at + MAX_FRAME])

    def close(self, code: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        """Sends a close frame."""
        self.client.data(self.number, self._frames.close(code, "done"))

    def receive(self) -> tuple[Opcode, str | bytes]:
        """The next message, or the payload of the next control frame."""
        text, data, opcode = "", b"", None
        while True:
            for frame in self._frames.received_frames():
                opcode = opcode or frame.opcode
                if isinstance(frame.payload, str):
                    text += frame.payload
                elif isinstance(frame.payload, tuple):
                    return frame.opcode, str(int(frame.payload[0]))
                else:
                    data += bytes(frame.payload)
                if frame.message_finished:
                    return opcode, text if opcode is Opcode.TEXT else data
            self.client.wait(lambda: len(self.stream.body) > self._taken or self.stream.is_done)
            assert len(self.stream.body) > self._taken, self.stream
            self._frames.receive_bytes(bytes(self.stream.body[self._taken :]))
            self._taken = len(self.stream.body)


def client_of(plane: DataPlane) -> RawHttp2:
    client = RawHttp2(plane.address, plane.ca_file)
    assert client.wait(lambda: client.settings.get(ENABLE_CONNECT_PROTOCOL) == 1)
    return client


def test_messages_come_back_as_they_were_sent(plane: DataPlane, server: EchoServer) -> None:
    noise = random.Random(1).randbytes(60_000)  # noqa: S311 - any bytes
    with client_of(plane) as client:
        session = Session(client, plane.api_key, b"/chat")
        assert session.stream.status == 200
        answer = session.stream.answers[-1]
        assert answer.header(b"sec-websocket-protocol") == b"chat"
        for name in (b"sec-websocket-accept", b"connection", b"upgrade", b"transfer-encoding"):
            assert answer.header(name) is None
        for message in ("hello", "", "Ä ☃ " * 1000, b"", b"\0\xff", noise):
            session.send(message)
            expected = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
            assert session.receive() == (expected, message)
        request = server.requests[0]
        assert request.path == "/chat"
        assert request.headers["host"] == "a"
        assert request.headers["x-evervault-ctx"].encode() == answer.header(b"x-evervault-ctx")
        assert "api-key" not in request.headers
        session.close()
        assert session.receive() == (Opcode.CLOSE, "1000")
        assert client.answer(session.number).is_over
        # Each half is ended by its own side.
        client.data(session.number, b"", is_over=True)
        wait_until(lambda: len(server.closed) == 1, 3)
        assert server.closed == [(1000, "done")]
    assert plane.stats()["websockets"] == 1
    wait_until(lambda: plane.stats()["active_websockets"] == 0)


def test_megabytes_pass_both_ways(plane: DataPlane) -> None:
    """More than any window, and more than a connection may cost that carries nothing."""
    noise = random.Random(2).randbytes(1 << 20)  # noqa: S311 - any bytes
    with client_of(plane) as client:
        session = Session(client, plane.api_key)
        for at in list(range(0, len(noise), 128 * 1024)) * 10:
            session.send(noise[at : at + 128 * 1024])
            opcode, payload = session.receive()
            assert opcode is Opcode.BINARY
            assert payload == noise[at : at + 128 * 1024]
        session.close()
        assert session.receive()[0] is Opcode.CLOSE


def test_sessions_and_requests_share_a_connection(plane: DataPlane) -> None:
    with client_of(plane) as client:
        sessions = [Session(client, plane.api_key) for _ in range(20)]
        plain = client.ask(get(plane.api_key, b"/plain"))
        for turn in range(5):
            for number, session in enumerate(sessions):
                session.send(f"{turn} {number}")
        for turn in range(5):
            for number, session in enumerate(sessions):
                assert session.receive() == (Opcode.TEXT, f"{turn} {number}")
        assert client.answer(plain).answers[-1].body == b"plain\n"
        # One that is reset takes none of the others with it.
        client.send(reset(sessions[0].number))
        for session in sessions[1:]:
            session.send("still there")
            assert session.receive() == (Opcode.TEXT, "still there")
        wait_until(lambda: plane.stats()["active_websockets"] == 19)
    wait_until(lambda: plane.stats()["active_websockets"] == 0)
    assert plane.stats()["connections"] == 1


def test_what_the_server_ends_is_ended(plane: DataPlane) -> None:
    with client_of(plane) as client:
        session = Session(client, plane.api_key, b"/close")
        assert session.stream.status == 200
        assert session.receive() == (Opcode.CLOSE, "4002")
        session.close(CloseReason(1000))
        stream = client.answer(session.number)
        assert stream.is_over
        assert stream.reset in {None, 0}


def test_a_client_that_ends_its_half_without_a_close_frame_is_let_go(
    plane: DataPlane, server: EchoServer
) -> None:
    with client_of(plane) as client:
        session = Session(client, plane.api_key)
        session.send("hello")
        assert session.receive() == (Opcode.TEXT, "hello")
        client.data(session.number, b"", is_over=True)
        assert client.answer(session.number, 5).is_done
        wait_until(lambda: plane.stats()["active_websockets"] == 0)
        assert client.answer(client.ask(get(plane.api_key))).status == 200
    assert server.closed[0][0] == 1006


def test_what_is_refused_opens_no_session(plane: DataPlane, server: EchoServer) -> None:
    with client_of(plane) as client:
        for key, status in ((None, 401), ("ck_wrong_" + "a" * 43, 401)):
            session = Session(client, key)
            assert client.answer(session.number, 5).status == status
            assert list(json.loads(bytes(session.stream.body))) == ["message"]
            assert session.stream.answers[-1].header(b"x-evervault-ctx")
        assert not server.requests
        forbidden = Session(client, plane.api_key, b"/forbidden")
        assert client.answer(forbidden.number, 5).status == 403
        assert forbidden.stream.body == b"not you\n"
        unknown = Session(client, plane.api_key, protocol=b"connect-udp")
        assert client.answer(unknown.number, 5).status == 501
        # The twin, on the same connection.
        assert Session(client, plane.api_key).stream.status == 200
    assert plane.stats()["websockets"] == 1


def test_the_record_is_that_of_a_websocket(server: EchoServer, tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "trx.ndjson"
    with DataPlane(server.address, logs=logs) as plane:
        with client_of(plane) as client:
            session = Session(client, plane.api_key, b"/chat")
            session.send("x" * 1000)
            session.receive()
            session.close()
            client.answer(session.number, 5)
        wait_until(lambda: plane.stats()["active_websockets"] == 0)
        plane.drain(dt.timedelta(seconds=5))
    (record,) = [json.loads(line) for line in logs.read_text().splitlines()]
    assert record["requestType"] == "Websocket"
    assert record["uri"].startswith("/chat")
    assert record["bytesIn"] > 1000
    assert record["bytesOut"] > 1000
    context = session.stream.answers[-1].header(b"x-evervault-ctx")
    assert context is not None
    assert record["txid"] == context.decode()
