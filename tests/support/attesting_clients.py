"""Every transport of the client behind one face, so that one table of tests holds for all."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import httpx

from cloister import client
from cloister.client.httpx_transport import AsyncAttestedTransport, AttestedTransport


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        status: Of the response.
        body: Of the response.
        version: ``HTTP/1.1`` or ``HTTP/2``.
    """

    status: int
    body: bytes
    version: str = "HTTP/1.1"

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Caller(Protocol):
    """One client of one enclave; connections are kept alive from call to call."""

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        """One request: POST with a body, GET without; ``last`` ends the connection after it."""

    def attestor(self) -> client.Attestor:
        """What checks its connections."""

    def close(self) -> None:
        """Ends connections and threads."""


class _Requests:
    def __init__(self, url: str, *given: Any, **options: Any) -> None:
        self._session = client.Session(url, *given, **options)

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        method = "GET" if body is None else "POST"
        answer = self._session.request(method, path, data=body, headers=_headers(last=last))
        return Answer(answer.status_code, answer.content)

    def attestor(self) -> client.Attestor:
        return self._session.attestor()

    def close(self) -> None:
        self._session.close()


class _Httpx:
    def __init__(self, url: str, *given: Any, http2: bool = False, **options: Any) -> None:
        self._enclave = client.Enclave(url, *given, **options)
        transport = AttestedTransport(self._enclave, http2=http2)
        self._client = httpx.Client(
            transport=transport, base_url=str(self._enclave.url), timeout=20.0
        )

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        method = "GET" if body is None else "POST"
        answer = self._client.request(method, path, content=body, headers=_headers(last=last))
        return Answer(answer.status_code, answer.content, answer.http_version)

    def attestor(self) -> client.Attestor:
        return self._enclave.attestor

    def close(self) -> None:
        self._client.close()
        self._enclave.close()


class _AsyncHttpx:
    def __init__(self, url: str, *given: Any, http2: bool = False, **options: Any) -> None:
        self._enclave = client.Enclave(url, *given, **options)
        self._runner = asyncio.Runner()
        transport = AsyncAttestedTransport(self._enclave, http2=http2)
        self._client = httpx.AsyncClient(
            transport=transport, base_url=str(self._enclave.url), timeout=20.0
        )

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        method = "GET" if body is None else "POST"
        answer = self._runner.run(
            self._client.request(method, path, content=body, headers=_headers(last=last))
        )
        return Answer(answer.status_code, answer.content, answer.http_version)

    def attestor(self) -> client.Attestor:
        return self._enclave.attestor

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
        self._enclave.close()


class _Socket:
    """``http.client`` over :func:`cloister.client.connect`."""

    def __init__(self, url: str, *given: Any, **options: Any) -> None:
        self._enclave = client.Enclave(url, *given, **options)
        self._connection: http.client.HTTPConnection | None = None

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        if self._connection is None:
            made = http.client.HTTPConnection(self._enclave.url.host, self._enclave.url.port)
            made.sock = client.connect(self._enclave)
            self._connection = made
        headers = _headers(last=last)
        if self._enclave.api_key is not None:
            headers["api-key"] = self._enclave.api_key
        self._connection.request("GET" if body is None else "POST", path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.will_close or last:
            self._connection.close()
            self._connection = None
        return Answer(answer.status, content)

    def attestor(self) -> client.Attestor:
        return self._enclave.attestor

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._enclave.close()


class _Streams:
    """Plain HTTP/1.1 over :func:`cloister.client.open_connection`."""

    def __init__(self, url: str, *given: Any, **options: Any) -> None:
        self._enclave = client.Enclave(url, *given, **options)
        self._runner = asyncio.Runner()
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def call(self, path: str, body: bytes | None = None, *, last: bool = False) -> Answer:
        return self._runner.run(self._call(path, body, last=last))

    async def _call(self, path: str, body: bytes | None, *, last: bool) -> Answer:
        if self._open is None:
            self._open = await client.open_connection(self._enclave)
        reader, writer = self._open
        headers = {"host": "localhost", **_headers(last=last)}
        if body is not None:
            headers["content-length"] = str(len(body))
        if self._enclave.api_key is not None:
            headers["api-key"] = self._enclave.api_key
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b""))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        content = await reader.readexactly(length)
        if last or "connection: close" in head:
            await self._end()
        return Answer(int(head.split(" ")[1]), content)

    async def _end(self) -> None:
        if self._open is not None:
            writer, self._open = self._open[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def attestor(self) -> client.Attestor:
        return self._enclave.attestor

    def close(self) -> None:
        self._runner.run(self._end())
        self._runner.close()
        self._enclave.close()


def _h2(kind: Callable[..., Caller]) -> Callable[..., Caller]:
    def made(*given: Any, **options: Any) -> Caller:
        return kind(*given, http2=True, **options)

    return made


CLIENTS: dict[str, Callable[..., Caller]] = {
    "requests": _Requests,
    "httpx": _Httpx,
    "httpx-h2": _h2(_Httpx),
    "httpx-async": _AsyncHttpx,
    "httpx-async-h2": _h2(_AsyncHttpx),
    "socket": _Socket,
    "streams": _Streams,
}
"""Each takes what :class:`cloister.client.Enclave` takes."""


@contextlib.contextmanager
def calling(name: str, *given: Any, **options: Any) -> Iterator[Caller]:
    """A client for the length of a block."""
    made = CLIENTS[name](*given, **options)
    try:
        yield made
    finally:
        made.close()


@contextlib.asynccontextmanager
async def async_client(enclave: client.Enclave, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An :class:`httpx.AsyncClient` of one enclave."""
    transport = AsyncAttestedTransport(enclave, **options)
    async with httpx.AsyncClient(
        transport=transport, base_url=str(enclave.url), timeout=30.0
    ) as made:
        yield made


def _headers(*, last: bool) -> dict[str, str]:
    return {"connection": "close"} if last else {}
