"""Thousands of connections from one process to another, each process with its own descriptors.

``python -m tests.support.many_connections serve`` prints ``HOST:PORT`` and says back what it hears;
``… hold HOST:PORT COUNT`` opens connections, has a number come back on each, prints ``open``, waits
for a line, has them all come back once more, prints ``same`` and ends.
"""

import resource
import selectors
import socket
import struct
import sys

NUMBER = struct.Struct("!I")
AT_ONCE = 500


def serve() -> None:
    """Accepts and echoes until it is killed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)  # noqa: FBT003 - the name of the argument is its method's
    _say(f"127.0.0.1:{listening.getsockname()[1]}")
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
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


def hold(host: str, port: int, count: int) -> None:
    """Opens ``count`` connections and tries each, before and after a line of input."""
    opened: list[socket.socket] = []
    while len(opened) < count:
        some = min(AT_ONCE, count - len(opened))
        opened += [socket.create_connection((host, port), 30) for _ in range(some)]
        _try(opened[-some:], len(opened) - some)
    _say("open")
    sys.stdin.readline()
    _try(opened, 7)
    _say("same")


def _try(connections: list[socket.socket], first: int) -> None:
    """Each must get back the number that was sent on it."""
    for number, connection in enumerate(connections, first):
        connection.sendall(NUMBER.pack(number))
    for number, connection in enumerate(connections, first):
        got = connection.recv(NUMBER.size, socket.MSG_WAITALL)
        assert got == NUMBER.pack(number), (number, got)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Does one of the two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] == "serve":
        serve()
    host, _, port = sys.argv[2].rpartition(":")
    hold(host, int(port), int(sys.argv[3]))


if __name__ == "__main__":
    main()
