"""Peers over real sockets: a server whose behavior is a function, and a folder for short paths."""

import contextlib
import pathlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator

TIMEOUT_S = 20.0


class Peer:
    """A server that gives each connection to ``serve`` on a thread of its own.

    Args:
        serve: Is given the connection, which is closed when it returns.
        address: ``(host, port)`` for TCP, a path for Unix.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        address: tuple[str, int] | pathlib.Path = ("127.0.0.1", 0),
    ) -> None:
        self._serve = serve
        if isinstance(address, pathlib.Path):
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(address))
            self.address = f"unix:{address}"
        else:
            self._listening = socket.create_server(address)
            host, port = self._listening.getsockname()[:2]
            self.address = f"tcp:{host}:{port}"
        self._listening.listen(4096)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accepts no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT_S)
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)


@contextlib.contextmanager
def peer(
    serve: Callable[[socket.socket], None],
    address: tuple[str, int] | pathlib.Path = ("127.0.0.1", 0),
) -> Iterator[Peer]:
    """A :class:`Peer` inside a block."""
    made = Peer(serve, address)
    try:
        yield made
    finally:
        made.close()


def connect(address: str) -> socket.socket:
    """A client's connection to ``tcp:HOST:PORT`` or ``unix:PATH``."""
    kind, rest = address.split(":", 1)
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(TIMEOUT_S)
        made.connect(rest)
        return made
    host, port = rest.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Reads ``count`` bytes, or what came before the end."""
    got = bytearray()
    while len(got) < count:
        chunk = connection.recv(min(65_536, count - len(got)))
        if not chunk:
            break
        got += chunk
    return bytes(got)


def read_all(connection: socket.socket) -> bytes:
    """Reads up to the end."""
    return read_exactly(connection, 1 << 40)


def echo(connection: socket.socket) -> None:
    """Sends back what comes, and the end after it."""
    while chunk := connection.recv(65_536):
        connection.sendall(chunk)


@contextlib.contextmanager
def short_folder() -> Iterator[pathlib.Path]:
    """A folder whose socket paths fit 107 bytes (unix(7)), wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as made:
        yield pathlib.Path(made)
