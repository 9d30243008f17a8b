"""T-04: who connects and says nothing, or little, or nonsense, takes nobody's handshake and time.

Single limits, with fewer connections, are in ``rust/devplane/tests/engine/handshakes.rs``.
"""

import contextlib
import pathlib
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from tests.support.application import wait_until
from tests.support.dev_process import DevProcess, dev_process
from tests.support.recording_process import recording

MAX_WAITING = 2_000
SILENT = 3_000
ANSWERED_WITHIN_S = 1.0


@pytest.fixture
def plane(tmp_path: pathlib.Path) -> Iterator[DevProcess]:
    acceptor = "[acceptor]\nhandshake_timeout = 20000\nmax_concurrent_handshakes = 4\n"
    with recording() as process, dev_process(process.address, tmp_path, tables=acceptor) as running:
        yield running


def test_three_thousand_silent_connections_delay_nobody_and_the_oldest_are_shed(
    plane: DevProcess,
) -> None:
    _is_served(plane)
    before, idle = plane.memory(), plane.processor_seconds()
    with _silent(plane, SILENT) as silent:
        wait_until(lambda: plane.metric("connections_shed_total") == SILENT - MAX_WAITING)
        for _ in range(5):
            _is_served(plane)
        closed = [_is_closed(stream) for stream in silent]
        # Each of the five pushed out one more: it has no ClientHello either, for a moment.
        shed = sum(closed)
        assert SILENT - MAX_WAITING <= shed <= SILENT - MAX_WAITING + 10
        assert all(closed[:shed]), "the oldest"
        assert plane.metric("connections_shed_total") == shed
        assert (plane.memory() - before) / MAX_WAITING < 16 * 1024
        assert plane.processor_seconds() - idle < 3
    _is_served(plane)


def test_handshakes_byte_by_byte_take_no_slot_until_they_are_whole(plane: DevProcess) -> None:
    hello = _client_hello()
    with _silent(plane, 200) as slow:
        for at in range(40):
            for stream in slow:
                stream.sendall(hello[at : at + 1])
            if at % 10 == 0:
                _is_served(plane)
        assert not any(_is_closed(stream) for stream in slow)
        # The twin: with the rest of its bytes one of them is answered like anybody.
        slow[0].setblocking(True)  # noqa: FBT003 - positional by design
        slow[0].sendall(hello[40:])
        assert slow[0].recv(5)[:1] == b"\x16"


def test_a_handshake_that_stops_after_its_hello_does_not_block_the_others(
    plane: DevProcess,
) -> None:
    """They hold all four slots, if they hold any: what comes after must not wait for them."""
    with _silent(plane, 40) as stalled:
        for stream in stalled:
            stream.sendall(_client_hello())
        for stream in stalled:
            stream.setblocking(True)  # noqa: FBT003
            stream.settimeout(5)
        answered = sum(stream.recv(1) == b"\x16" for stream in stalled[:4])
        assert answered == 4
        _is_served(plane)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\x00" * 100,
        b"\x80\x2e\x01\x00\x02",
        b"\x00" * 600,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
    ],
    ids=["http", "long-record", "ssl2", "zeros", "alert", "data"],
)
def test_what_is_no_handshake_is_closed_and_counted(plane: DevProcess, nonsense: bytes) -> None:
    before = plane.metric("handshakes_failed_total")
    with _silent(plane, 1) as (stream,):
        stream.sendall(nonsense)
        wait_until(lambda: _is_closed(stream))
        wait_until(lambda: plane.metric("handshakes_failed_total") == before + 1)
    _is_served(plane)


def test_a_wrong_version_or_cipher_is_refused_and_a_right_one_is_not(plane: DevProcess) -> None:
    host, _, port = plane.address.rpartition(":")
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        context = ssl.create_default_context(cafile=plane.ca_file)
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            assert stream.version() == version.name.replace("_", ".")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("AES128-SHA")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"),
    ):
        old.wrap_socket(plain, server_hostname="localhost")
    _is_served(plane)


@contextlib.contextmanager
def _silent(plane: DevProcess, count: int) -> Iterator[list[socket.socket]]:
    host, _, port = plane.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(count):
            stream = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            streams.append(stream)
            if number % 100 == 99:
                # The backlog of the listener is not what is tried here.
                wait_until(lambda: plane.metric("connections_total") >= len(streams))
        yield streams


def _is_served(plane: DevProcess) -> None:
    """A client that means it is answered in time, from its first packet on."""
    begun = time.monotonic()
    with plane.client() as client:
        request = f"GET / HTTP/1.1\r\nHost: a\r\napi-key: {plane.key}\r\n\r\n"
        assert client.ask(request.encode()).status == 200
    assert time.monotonic() - begun < ANSWERED_WITHIN_S


def _is_closed(stream: socket.socket) -> bool:
    stream.setblocking(False)  # noqa: FBT003 - positional by design
    try:
        while data := stream.recv(64):
            assert data
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _client_hello() -> bytes:
    """The first flight of the ssl module."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
