"""What stands between client and enclave: a proxy that tunnels, a switch, a man in the middle."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from tests.support.sockets import Peer, peer


def pump(near: socket.socket, far: socket.socket, seen: Callable[[bytes], object]) -> None:
    """Moves bytes both ways until an end; shows those of ``near``."""

    def back() -> None:
        _move(far, near, lambda _piece: None)

    thread = threading.Thread(target=back, daemon=True)
    thread.start()
    _move(near, far, seen)
    thread.join(10)


def _move(source: socket.socket, sink: socket.socket, seen: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while piece := source.recv(65_536):
            seen(piece)
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Tunnels:
    """An HTTP proxy that knows CONNECT.

    Attributes:
        asked: Target and proxy credentials of each request.
        first_bytes: What clients sent first through their tunnels.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.first_bytes: list[bytes] = []

    def serve(self, near: socket.socket) -> None:
        """One connection."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = near.recv(4096)
            if not piece:
                return
            head += piece
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        secrets = [line[21:] for line in lines if line.lower().startswith("proxy-authorization: ")]
        self.asked.append((target, secrets[0] if secrets else None))
        if method != "CONNECT":
            near.sendall(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as far:
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            if isinstance(near, ssl.SSLSocket):
                # One thread for each connection: TLS of Python is not for two at once.
                _both_ways(near, far, lambda _piece: None)
                return
            first: list[bytes] = []
            pump(near, far, lambda piece: first.append(piece) if not first else None)
            self.first_bytes += first


@contextlib.contextmanager
def tunneling(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, Tunnels]]:
    """A proxy for the length of a block, and its URL; reached by TLS with a ``context``."""
    tunnels = Tunnels()

    def serve(near: socket.socket) -> None:
        if context is None:
            tunnels.serve(near)
            return
        with context.wrap_socket(near, server_side=True) as inside:
            tunnels.serve(inside)

    with peer(serve) as running:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{_port(running)}", tunnels


class Switch:
    """A port whose new connections lead where :attr:`target` says, like the relay of a host."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._open: list[socket.socket] = []

    def serve(self, near: socket.socket) -> None:
        """One connection."""
        host, _, port = self.target.rpartition(":")
        self._open.append(near)
        with socket.create_connection((host, int(port)), timeout=10) as far:
            pump(near, far, lambda _piece: None)

    def cut(self) -> None:
        """Ends every connection there is."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def switching(target: str) -> Iterator[tuple[str, Switch]]:
    """A switch for the length of a block, and the origin that it is."""
    switch = Switch(target)
    with peer(switch.serve) as running:
        yield f"https://localhost:{_port(running)}", switch


@contextlib.contextmanager
def in_the_middle(
    target: str, own: ssl.SSLContext, theirs: ssl.SSLContext
) -> Iterator[tuple[str, bytearray]]:
    """Ends TLS with a certificate of its own and passes everything on; what it could read.

    Args:
        target: ``HOST:PORT`` of the data plane.
        own: With its certificate.
        theirs: For its connection to the data plane.
    """
    read = bytearray()

    def serve(near: socket.socket) -> None:
        host, _, port = target.rpartition(":")
        with (
            own.wrap_socket(near, server_side=True) as clear,
            socket.create_connection((host, int(port)), timeout=10) as raw,
            theirs.wrap_socket(raw, server_hostname="localhost") as far,
        ):
            _both_ways(clear, far, read.extend)

    with peer(serve) as running:
        yield f"https://localhost:{_port(running)}", read


def _both_ways(near: socket.socket, far: socket.socket, seen: Callable[[bytes], object]) -> None:
    for end in (near, far):
        end.settimeout(0.02)
    while True:
        for source, sink in ((near, far), (far, near)):
            try:
                piece = source.recv(65_536)
            except TimeoutError:
                continue
            if not piece:
                return
            if source is near:
                seen(piece)
            sink.sendall(piece)


def _port(running: Peer) -> str:
    return running.address.rpartition(":")[2]
