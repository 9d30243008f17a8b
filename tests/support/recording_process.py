"""A user process that answers as it was told and remembers every byte it received.

It runs on one thread: within a turn of its loop everything is read before anything is answered, so
that once a request was answered, whatever came before it on any connection was seen.
"""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from tests.support.exchanges import Received

HEALTH_AGENT = b"Evervault-Healthcheck-Agent"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is sent back.

    Args:
        pieces: Bytes, one write each.
        pause_s: Before each piece after the first, seconds.
        then: What becomes of the connection.
        when: Once the request is over, or as soon as its head is there.
    """

    pieces: tuple[bytes, ...]
    pause_s: float = 0.02
    then: Literal["keep", "close", "reset"] = "keep"
    when: Literal["end", "head"] = "end"


def ok(body: bytes, *lines: bytes) -> Reply:
    """200 with a length."""
    head = b"".join(line + b"\r\n" for line in lines)
    length = str(len(body)).encode()
    return Reply(
        pieces=(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n" + head + b"\r\n" + body,)
    )


def echo(request: Received) -> Reply:
    """The target as the body; nothing but a head to HEAD."""
    reply = ok(b"you asked for " + request.target)
    if request.raw.startswith(b"HEAD "):
        return Reply(pieces=(reply.pieces[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n",))
    return reply


class RecordingProcess:
    """A server on 127.0.0.1.

    Attributes:
        script: What to answer to a request; it is given the request as far as it was read.
        received: What came, each request when it was over or its connection ended.
    """

    def __init__(self, script: Callable[[Received], Reply] = echo) -> None:
        self.script = script
        self.received: list[Received] = []
        self.connections = 0
        self.open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(server, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self.port}"

    def unfinished(self) -> list[Received]:
        """What open connections have of a request that is not over, or was never begun."""
        parts = [connection.so_far() for connection in tuple(self.open)]
        return [part for part in parts if part.raw]

    def hang_up(self) -> None:
        """Closes every connection that is open."""

        def close() -> None:
            for connection in tuple(self.open):
                connection.end("close")

        self._loop.call_soon_threadsafe(close)

    def stop(self) -> None:
        """Ends it."""

        def end() -> None:
            self._server.close()
            for connection in tuple(self.open):
                connection.end("reset")
            self._loop.call_soon(self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(10)
        self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, process: RecordingProcess) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._bytes = bytearray()
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._number = self._process.connections
        self._process.connections += 1
        self._process.open.add(self)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        self._look()

    def eof_received(self) -> None:
        self._forget()

    def connection_lost(self, _problem: Exception | None) -> None:
        self._forget()

    def so_far(self) -> Received:
        return Received(self._number, bytes(self._bytes), is_whole=False)

    def end(self, how: str) -> None:
        if how == "reset":
            self._transport.abort()
        else:
            self._transport.close()

    def _forget(self) -> None:
        self._process.open.discard(self)
        if self._bytes and HEALTH_AGENT not in self._bytes:
            self._process.received.append(self.so_far())
        self._bytes.clear()

    def _look(self) -> None:
        end = _end_of_request(self._bytes)
        if end is not None:
            request = Received(self._number, bytes(self._bytes[:end]), is_whole=True)
            del self._bytes[:end]
            if HEALTH_AGENT in request.raw:
                self._loop.call_soon(self._send, ok(b""), 0)
                return
            self._process.received.append(request)
            if not self._is_answered:
                self._loop.call_soon(self._send, self._process.script(request), 0)
            self._is_answered = False
        elif b"\r\n\r\n" in self._bytes and not self._is_answered:
            reply = self._process.script(self.so_far())
            if reply.when == "head":
                self._is_answered = True
                self._loop.call_soon(self._send, reply, 0)

    def _send(self, reply: Reply, at: int) -> None:
        if self._transport.is_closing():
            return
        if at < len(reply.pieces):
            self._transport.write(reply.pieces[at])
        if at + 1 < len(reply.pieces):
            self._loop.call_later(reply.pause_s, self._send, reply, at + 1)
        else:
            if self._bytes:
                self._look()
            if reply.then != "keep":
                self.end(reply.then)


def _end_of_request(data: bytearray) -> int | None:
    """Where the first request ends; a body that cannot be read has no end."""
    head, found, _ = bytes(data).partition(b"\r\n\r\n")
    if not found:
        return None
    at = len(head) + 4
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
    framing = {name: value.strip() for name, _, value in fields}
    if b"transfer-encoding" not in framing:
        at += int(framing.get(b"content-length", b"0"))
        return at if len(data) >= at else None
    with contextlib.suppress(ValueError):
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line], 16)
            if size == 0:
                end = data.find(b"\r\n\r\n", line)
                return None if end < 0 else end + 4
            at = line + 2 + size + 2
            if bytes(data[at - 2 : at]) not in {b"\r\n", b"\r", b""}:
                break
    return None


@contextlib.contextmanager
def recording(script: Callable[[Received], Reply] = echo) -> Iterator[RecordingProcess]:
    """A process for the length of a block."""
    process = RecordingProcess(script)
    try:
        yield process
    finally:
        process.stop()
