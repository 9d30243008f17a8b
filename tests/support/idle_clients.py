"""Many TLS connections that asked once and wait: ``python -m tests.support.idle_clients``.

Arguments: ``HOST:PORT``, the CA file, an API key, how many, and how long a body each
sends. When all of them were answered it says ``N`` on a line and keeps them until its standard
input ends. A program of its own, because descriptors are limited by process and because its memory
is not what is measured.
"""

import asyncio
import contextlib
import pathlib
import ssl
import subprocess
import sys
from collections.abc import Iterator

AT_ONCE = 64


@contextlib.contextmanager
def idle_clients(address: str, ca_file: str, key: str, count: int, body: int = 0) -> Iterator[None]:
    """So many connections for the length of a block; each sends a body of so many bytes before."""
    arguments = [address, ca_file, key, str(count), str(body)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.idle_clients", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{count}\n"
            yield
        finally:
            process.kill()


class _Asking(asyncio.Protocol):
    """One connection; the transports keep themselves alive."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._seen = b""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" in self._seen and not self.answered.done():
            assert self._seen.startswith(b"HTTP/1.1 200 "), self._seen
            self.answered.set_result(None)

    def connection_lost(self, _problem: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("closed before it was answered"))


async def _open(address: str, ca_file: str, key: str, count: int, body: int) -> None:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca_file)
    line, length = ("POST", f"Content-Length: {body}\r\n") if body else ("GET", "")
    head = f"{line} / HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\n{length}\r\n"
    request = head.encode() + b" " * body
    loop, turns, kept = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE), []

    async def one() -> None:
        async with turns:
            transport, asking = await loop.create_connection(
                lambda: _Asking(request), host, int(port), ssl=context, server_hostname="localhost"
            )
            kept.append(transport)
            await asking.answered

    await asyncio.gather(*(one() for _ in range(count)))
    sys.stdout.write(f"{len(kept)}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_open(*sys.argv[1:4], *map(int, sys.argv[4:6])))
