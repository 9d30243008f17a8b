"""A client that sends any bytes over TLS and reads answers by their framing, and no further."""

import contextlib
import pathlib
import socket
import ssl
from typing import Self

from tests.support.exchanges import Answer, Ending

TIMEOUT_S = 20.0


class Broken(Exception):
    """The stream ended inside an answer, or before one."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(answer)
        self.answer = answer


class RawClient:
    """One TLS connection of bytes.

    Args:
        address: ``HOST:PORT``.
        ca_file: What the certificate has to lead to.
        before: Sent before the handshake, as a relay's PROXY header is.
    """

    def __init__(self, address: str, ca_file: str | pathlib.Path, before: bytes = b"") -> None:
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.sendall(before)
        context = ssl.create_default_context(cafile=str(ca_file))
        self.stream = context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
        self._ahead = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops the connection."""
        self.stream.close()

    def send(self, data: bytes) -> None:
        """Sends bytes, all of them."""
        self.stream.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Sends what the other side may not want any more; false when it hung up."""
        try:
            self.stream.sendall(data)
        except OSError:
            return False
        return True

    def hang_up(self) -> None:
        """Ends this side of the TCP stream, and still reads."""
        super(ssl.SSLSocket, self.stream).shutdown(socket.SHUT_WR)

    def ask(self, data: bytes, *, to_head: bool = False) -> Answer:
        """Sends a request and reads the answer."""
        self.send(data)
        return self.answer(to_head=to_head)

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer, an interim one too.

        Raises:
            Broken: The stream ended before its end.
        """
        while b"\r\n\r\n" not in self._ahead:
            self._more(None)
        head = self._take(self._ahead.index(b"\r\n\r\n") + 4)
        first, *lines = head[:-4].split(b"\r\n")
        version, status = first.split(b" ")[:2]
        assert version == b"HTTP/1.1", first
        headers = tuple(_field(line) for line in lines)
        answer = Answer(int(status), headers, is_whole=False)
        if to_head or int(status) < 200 or status in {b"204", b"304"}:
            return Answer(int(status), headers)
        if (length := answer.header(b"content-length")) is not None:
            while len(self._ahead) < int(length):
                self._more(answer, bytes(self._ahead))
            return Answer(int(status), headers, self._take(int(length)))
        if answer.header(b"transfer-encoding") is not None:
            body, trailers = self._chunks(answer)
            return Answer(int(status), headers, body, trailers)
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while self._read():
                pass
        return Answer(int(status), headers, self._take(len(self._ahead)))

    def rest(self) -> tuple[bytes, Ending]:
        """Reads to the end of the stream: what came, and how it ended."""
        ending: Ending = "closed"
        try:
            while self._read():
                pass
        except TimeoutError:
            ending = "kept"
        except OSError:
            ending = "cut"
        return self._take(len(self._ahead)), ending

    def read_some(self) -> bytes:
        """What is here, waiting for at least one byte; nothing at the end."""
        if not self._ahead:
            self._read()
        return self._take(len(self._ahead))

    def _chunks(self, answer: Answer) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
        body = bytearray()
        while size := int(self._line(answer, body), 16):
            while len(self._ahead) < size + 2:
                self._more(answer, bytes(body + self._ahead[:size]))
            body += self._take(size)
            assert self._take(2) == b"\r\n"
        trailers = []
        while line := self._line(answer, body):
            trailers.append(_field(line))
        return bytes(body), tuple(trailers)

    def _line(self, answer: Answer, body: bytearray) -> bytes:
        while b"\r\n" not in self._ahead:
            self._more(answer, bytes(body))
        return self._take(self._ahead.index(b"\r\n") + 2)[:-2]

    def _more(self, answer: Answer | None, body: bytes = b"") -> None:
        try:
            if self._read():
                return
        except TimeoutError:
            raise
        except OSError:
            pass
        if answer is not None:
            answer = Answer(answer.status, answer.headers, body, is_whole=False)
            self._ahead.clear()
        raise Broken(answer)

    def _read(self) -> bool:
        data = self.stream.recv(65_536)
        self._ahead += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._ahead[:count])
        del self._ahead[:count]
        return taken


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b": ")
    assert colon, line
    return name, value
