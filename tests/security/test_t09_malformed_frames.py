"""T-09, the host's part: malformed or endless frames on a stream end that stream only.

Each case stands beside a good call on another stream, which is answered before and after.
"""

import contextlib
import pathlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.agent import BOOT, call, send_logs
from tests.support.sockets import peer, read_all, read_exactly, short_folder

from cloister._native import hostplane
from cloister.host import health

MALFORMED = {
    "not-http": b"\x00\x01\x02\x03\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "bad-header": b"GET /v1/time HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
    "bad-chunk": b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "long-target": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "many-headers": b"GET /v1/time HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n",
    "long-head": b"GET /v1/time HTTP/1.1\r\na: " + b"b" * 20_000 + b"\r\n\r\n",
    "long-body": b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1048577\r\n\r\n"
    + b"x" * 1_048_577,
    "negative-length": b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    "two-lengths": b"POST /v1/logs HTTP/1.1\r\nhost: a\r\n"
    b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx",
}


@contextlib.contextmanager
def agent(log_dir: pathlib.Path) -> Iterator[str]:
    with short_folder() as folder:
        server = hostplane.AgentServer(
            f"unix:{folder}/agent",
            upstream=folder / "nobody",
            log_dir=log_dir,
            enclave="5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11",
        )
        try:
            yield server.address
        finally:
            server.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with agent(tmp_path_factory.mktemp("logs")) as address:
        yield address


def say(address: str, frame: bytes) -> bytes:
    """Sends bytes and the end after them, and hears what comes until the stream ends."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(20)
        stream.connect(address.removeprefix("unix:"))
        heard = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            stream.sendall(frame)
            stream.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            heard = read_all(stream)
        return heard


@pytest.mark.parametrize("name", MALFORMED)
def test_t09_a_malformed_call_ends_its_own_stream_only(served: str, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as beside:
        beside.settimeout(20)
        beside.connect(served.removeprefix("unix:"))
        good = b"GET /v1/time HTTP/1.1\r\nhost: a\r\n\r\n"
        for _ in range(2):
            beside.sendall(good)
            assert read_exactly(beside, 15) == b"HTTP/1.1 200 OK"
            while not beside.recv(4096).endswith(b"}"):
                pass
            assert not say(served, MALFORMED[name]).startswith(b"HTTP/1.1 2")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(noise=st.binary(max_size=300), place=st.integers(0, 60))
def test_t09_bytes_written_over_a_call_never_stop_the_server(
    served: str, noise: bytes, place: int
) -> None:
    good = b"GET /v1/time HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    assert call(served, "GET", "/v1/time").status == 200
    say(served, good[:place] + noise + good[place + len(noise) :])
    assert call(served, "GET", "/v1/time").status == 200


@settings(max_examples=100, deadline=None)
@given(body=st.binary(min_size=1, max_size=300))
def test_t09_a_batch_of_any_bytes_is_refused_whole_and_the_next_is_taken(
    served: str, body: bytes
) -> None:
    headers = {"x-batch-sequence": "1", "x-cloister-boot": BOOT}
    assert call(served, "POST", "/v1/logs", body=body, headers=headers).status == 400
    assert send_logs(served, range(1, 3)).json == {"acked": 2}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n" + b"x" * 5_000_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"state":"great"}',
    ],
)
def test_t09_what_an_enclave_says_of_its_health_is_unknown_when_it_is_not_health(
    answer: bytes,
) -> None:
    def serve(reply: bytes) -> health.Health:
        def speak(connection: socket.socket) -> None:
            connection.recv(4096)
            connection.sendall(reply)

        with short_folder() as folder, peer(speak, folder / "health") as enclave:
            return health.ask(enclave.address)

    good = b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"state":"ready"}'
    assert serve(good).ready
    told = serve(answer)
    assert (told.ready, told.state) == (False, "unknown")
    assert told.reason
