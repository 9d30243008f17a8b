"""A small application to stand behind a data plane: it says what it was asked, and remembers it."""

import contextlib
import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Seen:
    """One request as the application saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None


class Server(http.server.ThreadingHTTPServer):
    """Takes a crowd at once; with its own backlog of 5, SYNs of a crowd are sent again."""

    daemon_threads = True
    request_queue_size = 1024


class Application:
    """Echoes bodies; ``/slow`` waits until :attr:`released` is set."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.entered = threading.Event()
        self.released = threading.Event()
        application = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                application._answer(self)

            do_POST = do_GET  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Lets go of what waits and ends."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = list(handler.headers.items())
        self.seen.append(Seen(handler.command, handler.path, headers, body))
        if handler.path == "/slow":
            self.entered.set()
            self.released.wait(20)
        answer = body or json.dumps({"path": handler.path}).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)


@contextlib.contextmanager
def application() -> Iterator[Application]:
    """An application for the length of a block."""
    running = Application()
    try:
        yield running
    finally:
        running.stop()


def wait_until(holds: object, seconds: float = 10.0) -> None:
    """Waits until the function ``holds`` says yes; fails the test when it does not in time."""
    assert callable(holds)
    stop = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        stop.wait(0.02)
    raise AssertionError(f"still not so after {seconds} s")
