"""An application that reads and writes bodies piece by piece, behind a data plane."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator

PIECE = bytes(range(256)) * 64
PIECES = 64


class StreamingApplication:
    """``POST`` says how many bytes came, and their SHA-256; ``GET`` sends :data:`PIECES` pieces.

    Attributes:
        first_came: Set when the first bytes of a body are here.
        go_on: ``GET`` waits for it after its first piece.
    """

    def __init__(self) -> None:
        self.first_came = threading.Event()
        self.go_on = threading.Event()
        application = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                digest, size = hashlib.sha256(), 0
                for piece in application._body(self):
                    application.first_came.set()
                    digest.update(piece)
                    size += len(piece)
                self._say(f"{size} {digest.hexdigest()}".encode())

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for number in range(PIECES):
                    self.wfile.write(f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n")
                    if number == 0:
                        application.go_on.wait(20)
                self.wfile.write(b"0\r\n\r\n")

            def _say(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Ends it."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @staticmethod
    def _body(handler: http.server.BaseHTTPRequestHandler) -> Iterator[bytes]:
        if "content-length" in handler.headers:
            left = int(handler.headers["content-length"])
            while left and (piece := handler.rfile.read(min(left, 65_536))):
                left -= len(piece)
                yield piece
            return
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            yield handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()


@contextlib.contextmanager
def streaming() -> Iterator[StreamingApplication]:
    """One for the length of a block."""
    running = StreamingApplication()
    try:
        yield running
    finally:
        running.stop()
