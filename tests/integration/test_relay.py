"""The relay over real sockets, driven by curl and by peers that behave well and badly."""

import contextlib
import datetime as dt
import hashlib
import http.server
import pathlib
import resource
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.sockets import (
    connect,
    echo,
    peer,
    read_all,
    read_exactly,
    short_folder,
)

from cloister.errors import TransportError, UsageError
from cloister.host.relay import Relay

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # PROXY protocol specification, 2.2


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Waits for something that another thread brings about; fails when it does not."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def file_server(folder: pathlib.Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *rest: object) -> None:
            super().__init__(*rest, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"tcp:127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_curl_fetches_a_file_through_two_relays_over_tcp_and_unix(tmp_path: pathlib.Path) -> None:
    content = hashlib.sha512(b"seed").digest() * 100_000
    (tmp_path / "file").write_bytes(content)
    with (
        short_folder() as folder,
        file_server(tmp_path) as server,
        Relay(f"unix:{folder}/middle", server) as inner,
        Relay("tcp:127.0.0.1:0", inner.address) as outer,
    ):
        url = outer.address.replace("tcp:", "http://") + "/file"
        fetched = subprocess.run(
            ["curl", "--silent", "--fail", "--max-time", "30", url],
            check=True,
            capture_output=True,
        )
        assert fetched.stdout == content
        assert outer.stats()["bytes_out"] == inner.stats()["bytes_out"] > len(content)
        assert outer.stats()["bytes_in"] == inner.stats()["bytes_in"] > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_proxy_header_names_the_client_and_leaves_with_its_first_bytes(host: str) -> None:
    first: list[bytes] = []

    def keep_first(connection: socket.socket) -> None:
        first.append(connection.recv(4096))
        connection.sendall(b"seen")

    with (
        peer(keep_first) as server,
        Relay(f"tcp:{host}:0", server.address, proxy_protocol=True) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"hello")
        assert client.recv(4) == b"seen"
        source, destination = client.getsockname(), client.getpeername()
        family, pack = (0x11, socket.AF_INET) if "." in host else (0x21, socket.AF_INET6)
        addresses = socket.inet_pton(pack, source[0]) + socket.inet_pton(pack, destination[0])
        ports = struct.pack("!HH", source[1], destination[1])
        body = addresses + ports
        expected = SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body + b"hello"
        assert first == [expected]
        assert relay.stats()["bytes_in"] == len(b"hello")


def test_a_client_without_an_address_is_announced_without_one() -> None:
    with (
        short_folder() as folder,
        peer(echo) as server,
        Relay(f"unix:{folder}/in", server.address, proxy_protocol=True) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"x")
        expected = SIGNATURE + bytes([0x21, 0x00, 0, 0]) + b"x"
        assert read_exactly(client, len(expected)) == expected


def test_a_server_that_speaks_first_is_not_kept_waiting_for_the_client() -> None:
    def greet(connection: socket.socket) -> None:
        assert read_exactly(connection, 28).startswith(SIGNATURE)
        connection.sendall(b"220 ready\r\n")
        read_all(connection)

    with (
        peer(greet) as server,
        Relay("tcp:127.0.0.1:0", server.address, proxy_protocol=True) as relay,
        connect(relay.address) as client,
    ):
        started = time.monotonic()
        assert client.recv(100) == b"220 ready\r\n"
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_end_of_one_direction_is_passed_on_and_the_other_goes_on(side: str) -> None:
    """Whoever ends first still gets what the other sends afterwards."""

    def serve(connection: socket.socket) -> None:
        if side == "client":
            heard = read_all(connection)
            connection.sendall(heard[::-1])
        else:
            connection.sendall(b"all I have to say")
            connection.shutdown(socket.SHUT_WR)
            answers.append(read_all(connection))

    answers: list[bytes] = []
    with (
        peer(serve) as server,
        Relay("tcp:127.0.0.1:0", server.address) as relay,
        connect(relay.address) as client,
    ):
        if side == "client":
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"cba"
        else:
            assert read_all(client) == b"all I have to say"
            client.sendall(b"heard")
            client.shutdown(socket.SHUT_WR)
            eventually(lambda: answers == [b"heard"])
        eventually(lambda: relay.stats()["active"] == 0)
        assert relay.stats()["failed"] == 0


def test_megabytes_cross_both_ways_at_once_unchanged() -> None:
    sent = b"".join(hashlib.sha256(struct.pack("!I", i)).digest() for i in range(1 << 18))
    with (
        peer(echo) as server,
        Relay("tcp:127.0.0.1:0", server.address) as relay,
        connect(relay.address) as client,
    ):

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        assert hashlib.sha256(read_all(client)).digest() == hashlib.sha256(sent).digest()
        sending.join()
        eventually(lambda: relay.stats()["active"] == 0)
        stats = relay.stats()
        assert stats["bytes_in"] == stats["bytes_out"] == len(sent)


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_thousand_connections_are_open_at_once_and_each_gets_its_own_bytes(workers: int) -> None:
    with (
        contextlib.ExitStack() as stack,
        short_folder() as folder,
        Relay(f"unix:{folder}/echo", _echo_relay(stack), max_connections=5_000) as inner,
        Relay("tcp:127.0.0.1:0", inner.address, workers=workers) as relay,
    ):
        clients = [stack.enter_context(connect(relay.address)) for _ in range(1_000)]
        for number, client in enumerate(clients):
            client.sendall(struct.pack("!I", number))
        for number, client in enumerate(clients):
            assert read_exactly(client, 4) == struct.pack("!I", number)
        assert relay.stats()["active"] == 1_000
        for client in clients:
            client.close()
        eventually(lambda: relay.stats()["active"] == 0)
        assert relay.stats()["accepted"] == 1_000
        assert relay.stats()["connect_errors"] == 0


def _echo_relay(stack: contextlib.ExitStack) -> str:
    """An echo server of one thread: a thread for each of a thousand would measure Python."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    stop = threading.Event()

    def serve() -> None:
        with selectors.DefaultSelector() as selector, listening:
            listening.settimeout(0)
            selector.register(listening, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is listening:
                        connection, _address = listening.accept()
                        selector.register(connection, selectors.EVENT_READ)
                        continue
                    assert isinstance(key.fileobj, socket.socket)
                    chunk = key.fileobj.recv(65_536)
                    if chunk:
                        key.fileobj.sendall(chunk)
                    else:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

    thread = threading.Thread(target=serve)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)
    return f"tcp:127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Four thousand sockets of this process: two relays, their clients, their server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8_192:
        pytest.skip("this user may not open 8 192 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8_192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def reset(connection: socket.socket) -> None:
    """Closes so that the peer gets a reset: what a killed process with unread bytes leaves."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("killed", ["client", "server"])
def test_when_one_side_is_killed_the_other_is_told_at_once(killed: str) -> None:
    told = threading.Event()
    inside = threading.Event()

    def serve(connection: socket.socket) -> None:
        read_exactly(connection, 5)
        inside.set()
        if killed == "server":
            reset(connection)
            return
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection) == b""
        told.set()

    with (
        peer(serve) as server,
        Relay("tcp:127.0.0.1:0", server.address) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"hello")
        assert inside.wait(10)
        if killed == "client":
            reset(client)
            assert told.wait(5)
        else:
            client.settimeout(5)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        eventually(lambda: relay.stats()["active"] == 0)
        assert relay.stats()["failed"] == 1


def test_one_connection_too_many_is_closed_and_the_others_go_on() -> None:
    with (
        peer(echo) as server,
        Relay("tcp:127.0.0.1:0", server.address, max_connections=2) as relay,
        connect(relay.address) as first,
        connect(relay.address) as second,
    ):
        for client in (first, second):
            client.sendall(b"a")
            assert client.recv(1) == b"a"
        with connect(relay.address) as third:
            assert third.recv(1) == b""
        assert relay.stats()["refused"] == 1
        first.close()
        eventually(lambda: relay.stats()["active"] == 1)
        with connect(relay.address) as fourth:
            fourth.sendall(b"b")
            assert fourth.recv(1) == b"b"


def test_when_nobody_is_there_the_client_is_reset_and_the_reason_is_kept() -> None:
    with peer(echo) as gone:
        address = gone.address
    with Relay("tcp:127.0.0.1:0", address) as relay:
        # The reset may come before or after connect(2) has returned.
        with pytest.raises(ConnectionResetError), connect(relay.address) as client:
            client.recv(1)
        stats = relay.stats()
        assert stats["connect_errors"] == 1
        assert stats["last_error"] is not None
        assert address in stats["last_error"]


def test_a_silent_connection_ends_after_its_idle_time() -> None:
    with (
        peer(echo) as server,
        Relay(
            "tcp:127.0.0.1:0", server.address, idle_timeout=dt.timedelta(milliseconds=300)
        ) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        assert client.recv(1) == b""
        assert relay.stats()["idle_closed"] == 1


def test_a_drain_finishes_what_is_in_flight_and_accepts_nothing_new() -> None:
    with (
        peer(echo) as server,
        Relay("tcp:127.0.0.1:0", server.address) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        left: list[int] = []
        draining = threading.Thread(
            target=lambda: left.append(relay.drain(dt.timedelta(seconds=20)))
        )
        draining.start()
        eventually(lambda: _is_refused(relay.address))
        client.sendall(b"still here")
        assert read_exactly(client, 10) == b"still here"
        client.close()
        draining.join(10)
        assert left == [0]


def _is_refused(address: str) -> bool:
    try:
        connect(address).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it closed in between
        return True
    return False


def test_a_drain_cuts_off_what_does_not_end_in_time() -> None:
    with (
        peer(echo) as server,
        Relay("tcp:127.0.0.1:0", server.address) as relay,
        connect(relay.address) as client,
    ):
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        assert relay.drain(dt.timedelta(milliseconds=100)) == 1
        assert client.recv(1) == b""


def test_an_address_in_use_and_one_that_is_none_say_so() -> None:
    with peer(echo) as server:
        with pytest.raises(TransportError, match="in use") as caught:
            Relay(server.address, server.address).start()
        assert caught.value.hint
        with pytest.raises(UsageError, match="tcp:HOST:PORT"):
            Relay("127.0.0.1:443", server.address)
        with Relay("tcp:127.0.0.1:0", server.address) as relay:
            connect(relay.address).close()


def test_new_connections_go_where_the_relay_was_turned_to_and_old_ones_stay() -> None:
    def says(word: bytes) -> Callable[[socket.socket], None]:
        def serve(connection: socket.socket) -> None:
            while connection.recv(1):
                connection.sendall(word)

        return serve

    def asked(client: socket.socket) -> bytes:
        client.sendall(b"?")
        return read_exactly(client, 3)

    with (
        peer(says(b"old")) as old,
        peer(says(b"new")) as new,
        Relay("tcp:127.0.0.1:0", old.address) as relay,
        connect(relay.address) as before,
    ):
        assert asked(before) == b"old"
        with pytest.raises(UsageError, match="to: "):
            relay.retarget("nowhere")
        relay.retarget(new.address)
        with connect(relay.address) as after:
            assert asked(after) == b"new"
            assert asked(before) == b"old"
        assert relay.stats()["connect_errors"] == 0
