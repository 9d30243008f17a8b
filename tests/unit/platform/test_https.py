"""The client of a platform's server against servers that drip, or say too much."""

import contextlib
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.support.server_certificates import Authority

from cloister.errors import TransportError
from cloister.platform.https import MAX_ANSWER_BYTES, PlatformClient

HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = b"y" * 40
PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.02

# An answer `[1]`, and where it begins to drip: each takes more than 0.8 seconds.
DRIPPING = {
    "status": (b"", HEAD + b"content-length: 3\r\n\r\n[1]"),
    "head": (HEAD, b"x: %s\r\ncontent-length: 3\r\n\r\n[1]" % LONG),
    "body": (HEAD + b"content-length: 43\r\n\r\n", b"[1]" + b" " * 40),
    "chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"3;%s\r\n[1]\r\n0\r\n\r\n" % LONG),
}


class Server:
    """A TLS server that sends the first part of each answer at once, and the rest byte by byte."""

    def __init__(self, folder: pathlib.Path, first: bytes, rest: bytes) -> None:
        authority = Authority(folder)
        self._context = authority.server("server").context()
        self._first, self._rest = first, rest
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._links: list[socket.socket] = []
        self.connections = 0
        self.ends = False
        """Whether a connection ends with its first answer."""
        port = self._listener.getsockname()[1]
        self.client = PlatformClient(f"https://localhost:{port}", "cp_x", ca_file=authority.file)

    def end(self) -> None:
        """Ends every connection, and its thread."""
        self._stopped.set()
        self.client.close()
        for one in (self._listener, *self._links):
            with contextlib.suppress(OSError):  # it ended before
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._answer, args=(plain,))
                thread.start()
                self._threads.append(thread)

    def _answer(self, plain: socket.socket) -> None:
        plain.settimeout(PATIENCE_SECONDS / 2)
        with (
            contextlib.suppress(OSError),  # the client closed it
            plain,
            self._context.wrap_socket(plain, server_side=True) as link,
            link.makefile("rb") as requests,
        ):
            self._links.append(link)
            while requests.readline():
                while requests.readline().strip():
                    pass
                link.sendall(self._first)
                for number in range(len(self._rest)):
                    if self._stopped.wait(PAUSE_SECONDS):
                        return
                    link.sendall(self._rest[number : number + 1])
                if self.ends:
                    return


Serve = Callable[[bytes, bytes], Server]


@pytest.fixture
def serve(tmp_path: pathlib.Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as ends:

        def start(first: bytes, rest: bytes) -> Server:
            made = Server(tmp_path, first, rest)
            ends.callback(made.end)
            return made

        yield start


@pytest.mark.parametrize("place", DRIPPING)
def test_an_answer_that_drips_is_not_waited_for_beyond_the_deadline(
    serve: Serve, place: str
) -> None:
    server = serve(*DRIPPING[place])
    assert server.client.get("/", deadline_s=PATIENCE_SECONDS) == [1]
    with pytest.raises(TransportError, match="did not answer in time"):
        server.client.get("/", deadline_s=0.3)
    # Nothing is left of it for the next.
    assert server.client.get("/", deadline_s=PATIENCE_SECONDS) == [1]
    assert server.connections == 2


def test_a_connection_with_more_than_is_read_is_closed(serve: Serve) -> None:
    length = MAX_ANSWER_BYTES + 2
    server = serve(HEAD + b"content-length: %d\r\n\r\n" % length + bytes(length - 1), b"")
    for _ in range(2):
        with pytest.raises(TransportError, match="more than is read"):
            server.client.get("/", deadline_s=PATIENCE_SECONDS)
    assert server.connections == 2


def test_a_connection_whose_answer_was_read_is_used_again(serve: Serve) -> None:
    """The longest that is read, too."""
    longest = b"[1]" + b" " * (MAX_ANSWER_BYTES - 3)
    server = serve(HEAD + b"content-length: %d\r\n\r\n" % len(longest) + longest, b"")
    for _ in range(2):
        assert server.client.get("/", deadline_s=PATIENCE_SECONDS) == [1]
    assert server.connections == 1


def test_a_close_ends_a_call_in_flight(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path, HEAD + b"content-length: 5000\r\n\r\n", b" " * 5000)
    ended: list[BaseException] = []

    def call() -> None:
        try:
            server.client.get("/v1/token", deadline_s=PATIENCE_SECONDS)
        except TransportError as problem:
            ended.append(problem)

    calling = threading.Thread(target=call)
    try:
        calling.start()
        while not server.connections:
            calling.join(0.01)
        calling.join(0.3)
        assert calling.is_alive()
        server.client.close()
        calling.join(PATIENCE_SECONDS / 4)
        assert not calling.is_alive()
        assert len(ended) == 1
    finally:
        server.end()


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"x: y\r\n",
        HEAD + b"content-length: 0\r\n\r\n",
        HEAD + b"content-length: 6\r\n\r\n<html>",
        HEAD + b"content-length: 4\r\n\r\nnull",
    ],
)
def test_an_answer_that_says_nothing_is_an_error(tmp_path: pathlib.Path, answer: bytes) -> None:
    server = Server(tmp_path, answer, b"")
    server.ends = True
    try:
        with pytest.raises(TransportError, match="is not JSON"):
            server.client.send("POST", "/", deadline_s=PATIENCE_SECONDS)
    finally:
        server.end()
    (tmp_path / "good").mkdir()
    server = Server(tmp_path / "good", b"HTTP/1.1 204 No Content\r\n\r\n", b"")
    try:
        assert server.client.send("POST", "/", deadline_s=PATIENCE_SECONDS) is None
    finally:
        server.end()
