"""Bodies of any size with encrypted values in them, and a user process that compares every byte.

Client and user process know what the clear text is, so the user process compares instead of
hashing, and neither holds more than one block. It runs as a program of its own, so that it shares
neither memory nor interpreter with who measures::

    python -m tests.support.bulk SECRETS     one port is printed; ends with its standard input

``POST /upload/N`` is answered with how many bytes came and how many of them are as they should be;
``GET /download/N`` with N blocks and a length, ``GET /chunked/N`` with N blocks in chunks;
``POST /deaf`` and ``GET /flood/N`` for back-pressure: nothing of the body is read, and how many
bytes could be written is told under ``GET /progress``.
"""

import contextlib
import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

FILLER_BYTES = 256 * 1024
BLOCKS = 64  # different ones; then they repeat


def clear_values(number: int) -> tuple[str, int]:
    """The values of a block that are encrypted on the way: a text and a number."""
    return f"text {number} \u00e9", 1_000_000 + number


def block(number: int, text: str, figure: str) -> bytes:
    """One record of the body, with its two values as they are written in JSON."""
    filler = bytes(97 + (number + at) % 26 for at in range(26)) * (FILLER_BYTES // 26)
    head = f'{{"text":{text},"filler":"'.encode()
    return head + filler + f'","figure":{figure}}},\n'.encode()


def clear_blocks() -> list[bytes]:
    """What the user process should get."""
    values = [clear_values(number) for number in range(BLOCKS)]
    return [
        block(number, json.dumps(text, ensure_ascii=False), str(figure))
        for number, (text, figure) in enumerate(values)
    ]


def body_of(blocks: list[bytes], count: int) -> Iterator[bytes]:
    """The pieces of a body of so many blocks."""
    yield b"["
    for number in range(count):
        yield blocks[number % len(blocks)]
    yield b"null]"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BulkProcess:
    """The user process, running.

    Attributes:
        address: ``HOST:PORT``.
    """

    address: str

    def progress(self) -> int:
        """Bytes that the last ``/flood`` could write so far."""
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as stream:
            stream.sendall(b"GET /progress HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := stream.recv(4096):
                answer += part
        return int(answer.partition(b"\r\n\r\n")[2])


@contextlib.contextmanager
def bulk_process() -> Iterator[BulkProcess]:
    """Runs it for the length of a block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.bulk"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        try:
            yield BulkProcess(address=f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


class _Compared:
    """Counts bytes, and how many of them are as they should be before the first that is not."""

    def __init__(self, blocks: list[bytes], count: int) -> None:
        self._pieces = body_of(blocks, count)
        self._rest = memoryview(b"")
        self.received = 0
        self.equal = 0
        self._is_equal = True

    def add(self, data: memoryview) -> None:
        self.received += len(data)
        while data and self._is_equal:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    self._is_equal = False
                    return
            size = min(len(data), len(self._rest))
            self._is_equal = data[:size] == self._rest[:size]
            self.equal += size if self._is_equal else 0
            data, self._rest = data[size:], self._rest[size:]

    @property
    def is_whole(self) -> bool:
        return self._is_equal and not self._rest and next(self._pieces, None) is None


class _Server:
    def __init__(self) -> None:
        self._blocks = clear_blocks()
        self._written = 0

    def serve(self, stream: socket.socket) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with stream, stream.makefile("rb", buffering=1 << 18) as reader:
            while first := reader.readline():
                headers = {}
                while (line := reader.readline()) not in {b"\r\n", b""}:
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value.strip()
                target = first.split(b" ")[1].decode()
                _, kind, *rest = target.split("/")
                answer = getattr(self, f"_{kind}", self._nothing)
                if not answer(int(rest[0]) if rest else 0, headers, reader, stream):
                    return

    def _nothing(
        self, _count: int, headers: dict[bytes, bytes], reader: object, to: socket.socket
    ) -> bool:
        reader.read(int(headers.get(b"content-length", b"0")))  # type: ignore[attr-defined]
        return self._say(to, b"")

    def _say(self, to: socket.socket, body: bytes) -> bool:
        to.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True

    def _progress(self, _count: int, _headers: object, _reader: object, to: socket.socket) -> bool:
        self._say(to, str(self._written).encode())
        return False

    def _upload(
        self, count: int, headers: dict[bytes, bytes], reader: object, to: socket.socket
    ) -> bool:
        compared = _Compared(self._blocks, count)
        room = memoryview(bytearray(1 << 20))
        assert headers[b"transfer-encoding"] == b"chunked"
        while size := int(reader.readline(), 16):  # type: ignore[attr-defined]
            while size:
                got = reader.readinto(room[: min(size, len(room))])  # type: ignore[attr-defined]
                if not got:
                    return False
                compared.add(room[:got])
                size -= got
            reader.readline()  # type: ignore[attr-defined]
        while reader.readline() not in {b"\r\n", b""}:  # type: ignore[attr-defined]
            pass
        result = {
            "received": compared.received,
            "equal": compared.equal,
            "whole": compared.is_whole,
        }
        return self._say(to, json.dumps(result).encode())

    def _download(self, count: int, _h: object, _r: object, to: socket.socket) -> bool:
        length = sum(len(piece) for piece in body_of(self._blocks, count))
        to.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for piece in body_of(self._blocks, count):
            to.sendall(piece)
        return True

    def _chunked(self, count: int, _h: object, _r: object, to: socket.socket) -> bool:
        to.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in body_of(self._blocks, count):
            to.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        to.sendall(b"0\r\n\r\n")
        return True

    def _flood(self, count: int, _h: object, _r: object, to: socket.socket) -> bool:
        self._written = 0
        to.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count << 20))
        for _ in range(count * 16):
            to.sendall(bytes(1 << 16))
            self._written += 1 << 16
        return True

    def _deaf(self, _count: int, _h: object, _r: object, _to: socket.socket) -> bool:
        threading.Event().wait(60)
        return False


def _main() -> None:
    server = _Server()
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()

    def handle(stream: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            server.serve(stream)

    def accept() -> None:
        while True:
            stream, _ = listening.accept()
            threading.Thread(target=handle, args=(stream,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    _main()
