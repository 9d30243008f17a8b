"""gRPC through the data plane, with the client and the server of `grpcio`.

The user process speaks h2c; the client speaks HTTP/2 inside TLS and sends the API key as metadata.
Methods are generic and messages are bytes, so no generated code stands between the test and the
wire.
"""

import concurrent.futures
import itertools
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.support.application import wait_until

from cloister.dev import DataPlane

MIB = 1 << 20
PLANE = {"service": {"protocol": "h2c"}}
SERVICE = "cloister.test.Echo"
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Each channel of a test has connections of its own.
    ("grpc.use_local_subchannel_pool", 1),
)


class EchoServer:
    """Says back what it is told, in each of the four ways of gRPC.

    Attributes:
        cancelled: One for each call that the client gave up.
        metadata: Of each call.
        peers: Connection of each call.
    """

    def __init__(self, port: int = 0, options: tuple[tuple[str, int], ...] = ()) -> None:
        self.cancelled = threading.Semaphore(0)
        self.metadata: list[dict[str, str | bytes]] = []
        self.peers: set[str] = set()
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Gather": grpc.stream_unary_rpc_method_handler(self._gather),
            "Scatter": grpc.unary_stream_rpc_method_handler(self._scatter),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
        }
        self._pool = concurrent.futures.ThreadPoolExecutor(32)
        self._server = grpc.server(self._pool, options=(*OPTIONS, *options))
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self.port}"

    def stop(self, grace: float | None = None) -> None:
        """Sends GOAWAY, lets calls end for ``grace`` seconds, then ends."""
        self._server.stop(grace).wait()
        self._pool.shutdown()

    def _note(self, context: grpc.ServicerContext) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.peers.add(context.peer())

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        context.send_initial_metadata((("x-first", "1"), ("x-bytes-bin", bytes(range(256)))))
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\0\xff")))
        return request

    def _gather(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._note(context)
        return b"".join(requests)

    def _scatter(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for number in range(int(request)):
            yield b"%d" % number

    def _talk(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for request in requests:
            yield b"heard " + request

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05details"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no “" + request.decode() + "” here\n100 %")
        raise AssertionError

    def _hang(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        ended = threading.Event()
        context.add_callback(ended.set)
        if ended.wait(20):
            self.cancelled.release()
        return b""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    running = EchoServer()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def plane(server: EchoServer) -> Iterator[DataPlane]:
    with DataPlane(server.address, config=PLANE) as running:
        yield running


def channel_of(plane: DataPlane, *options: tuple[str, Any]) -> grpc.Channel:
    """A channel that believes the development CA."""
    roots = pathlib.Path(plane.ca_file).read_bytes()
    credentials = grpc.ssl_channel_credentials(roots)
    target = f"localhost:{plane.address.rpartition(':')[2]}"
    return grpc.secure_channel(target, credentials, options=(*OPTIONS, *options))


@pytest.fixture
def channel(plane: DataPlane) -> Iterator[grpc.Channel]:
    with channel_of(plane) as opened:
        yield opened


@pytest.fixture
def key(plane: DataPlane) -> tuple[tuple[str, str], ...]:
    return (("api-key", plane.api_key),)


def unary(channel: grpc.Channel, name: str = "Unary") -> Any:
    return channel.unary_unary(f"/{SERVICE}/{name}")


def test_a_call_and_its_metadata_both_ways(
    server: EchoServer, channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    metadata = (*key, ("x-mine", "a, b"), ("x-raw-bin", b"\0\1\xff"))
    answer, call = unary(channel).with_call(b"hello", metadata=metadata, timeout=10)
    assert answer == b"hello"
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert first["x-first"] == "1"
    assert first["x-bytes-bin"] == bytes(range(256))
    assert len(str(first["x-evervault-ctx"])) == 32
    assert last == {"x-last": "2", "x-last-bin": b"\0\xff"}
    assert call.code() is grpc.StatusCode.OK
    seen = server.metadata[0]
    assert seen["x-mine"] == "a, b"
    assert seen["x-raw-bin"] == b"\0\1\xff"
    assert seen["x-evervault-ctx"] == first["x-evervault-ctx"]
    assert "api-key" not in seen


def test_without_a_key_it_is_unauthenticated_and_nothing_arrives(
    server: EchoServer, channel: grpc.Channel
) -> None:
    for metadata in ((), (("api-key", "ck_wrong_" + "a" * 43),)):
        with pytest.raises(grpc.RpcError) as refused:
            unary(channel)(b"hello", metadata=metadata, timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not server.metadata


def test_streams_of_the_client_of_the_server_and_of_both(
    channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    gather = channel.stream_unary(f"/{SERVICE}/Gather")
    parts = [b"%d," % number for number in range(500)]
    assert gather(iter(parts), metadata=key, timeout=20) == b"".join(parts)
    scatter = channel.unary_stream(f"/{SERVICE}/Scatter")
    numbers = [b"%d" % number for number in range(500)]
    assert list(scatter(b"500", metadata=key, timeout=20)) == numbers
    # Each message is sent only when the answer to the one before was read.
    heard = threading.Semaphore(1)

    def speak() -> Iterator[bytes]:
        for number in range(50):
            assert heard.acquire(timeout=10)
            yield b"%d" % number

    talk = channel.stream_stream(f"/{SERVICE}/Talk")
    count = 0
    for answer in talk(speak(), metadata=key, timeout=20):
        assert answer == b"heard %d" % count
        count += 1
        heard.release()
    assert count == 50


def test_ten_thousand_small_messages_on_one_stream(
    channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    """More frames of a few bytes than any guard against floods of them may mind."""
    talk = channel.stream_stream(f"/{SERVICE}/Talk")
    messages = [b"%d" % number for number in range(10_000)]
    answers = list(talk(iter(messages), metadata=key, timeout=60))
    assert answers == [b"heard " + message for message in messages]


def test_an_error_keeps_its_status_its_words_and_its_details(
    channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        unary(channel, "Fail")("é".encode(), metadata=key, timeout=10)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert failed.value.details() == "no “é” here\n100 %"
    details = dict(failed.value.trailing_metadata())
    assert details["grpc-status-details-bin"] == b"\x08\x05details"
    with pytest.raises(grpc.RpcError) as unknown:
        unary(channel, "Nothing")(b"", metadata=key, timeout=10)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_and_a_cancellation_reach_the_server(
    server: EchoServer, channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    hang = unary(channel, "Hang")
    with pytest.raises(grpc.RpcError) as late:
        hang(b"", metadata=key, timeout=2)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.cancelled.acquire(timeout=5)
    call = hang.future(b"", metadata=key, timeout=20)
    wait_until(lambda: len(server.metadata) == 2)
    call.cancel()
    begun = time.monotonic()
    assert server.cancelled.acquire(timeout=5)
    assert time.monotonic() - begun < 2
    assert unary(channel)(b"x", metadata=key, timeout=10) == b"x"


@pytest.mark.parametrize("size", [0, 1, 16_384, 70_000, 4 * MIB, 32 * MIB])
def test_messages_of_any_size(
    size: int, channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    assert unary(channel)(message[:size], metadata=key, timeout=60) == message[:size]


def test_two_hundred_calls_at_once(
    server: EchoServer, channel: grpc.Channel, key: tuple[tuple[str, str], ...]
) -> None:
    messages = [b"%d" % number * 100 for number in range(200)]
    calls = [unary(channel).future(message, metadata=key, timeout=30) for message in messages]
    assert [call.result() for call in calls] == messages
    assert len(server.metadata) == 200
    # Many calls share a connection to the user process.
    assert len(server.peers) <= 4


def call_on_and_on(channel: grpc.Channel, key: tuple[tuple[str, str], ...], seconds: float) -> int:
    """Calls from four threads, each checked: how many there were."""
    ends = time.monotonic() + seconds

    def call(first: int) -> int:
        for number in itertools.count(first):
            if time.monotonic() > ends:
                return number - first
            message = b"%d" % number
            assert unary(channel)(message, metadata=key, timeout=10) == message
        raise AssertionError

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(call, range(0, 4_000_000, 1_000_000)))


def test_connections_that_the_server_ends_again_and_again_fail_no_call() -> None:
    """GOAWAY every 100 ms; a call that the server did not begin is tried on the next connection."""
    ageing = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 2000))
    server = EchoServer(options=ageing)
    try:
        with (
            DataPlane(server.address, config=PLANE) as plane,
            channel_of(plane, ("grpc.enable_retries", 0)) as channel,
        ):
            count = call_on_and_on(channel, (("api-key", plane.api_key),), 3)
            assert count > 100
            assert len(server.peers) >= 5
            assert plane.stats()["connections"] == 1
    finally:
        server.stop()


def test_the_first_call_after_a_restart_is_answered(
    server: EchoServer, plane: DataPlane, key: tuple[tuple[str, str], ...]
) -> None:
    """The connection to the server that ended is not held against the one that took its place."""
    with channel_of(plane, ("grpc.enable_retries", 0)) as channel:
        assert unary(channel)(b"before", metadata=key, timeout=10) == b"before"
        server.stop()
        successor = EchoServer(server.port)
        try:
            assert unary(channel)(b"after", metadata=key, timeout=10) == b"after"
            assert len(successor.metadata) == 1
        finally:
            successor.stop()


def test_pings_of_the_client_are_answered(
    plane: DataPlane, key: tuple[tuple[str, str], ...]
) -> None:
    options = (
        ("grpc.keepalive_time_ms", 200),
        ("grpc.keepalive_timeout_ms", 2000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    with channel_of(plane, *options) as channel:
        states: list[grpc.ChannelConnectivity] = []
        assert unary(channel)(b"a", metadata=key, timeout=10) == b"a"
        channel.subscribe(states.append)
        time.sleep(2)
        assert unary(channel)(b"b", metadata=key, timeout=10) == b"b"
        assert set(states) <= {grpc.ChannelConnectivity.READY}
    assert plane.stats()["connections"] == 1
