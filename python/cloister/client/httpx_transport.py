"""``httpx`` over attested connections, for :class:`httpx.Client` and :class:`httpx.AsyncClient`.

Only public hooks are used: a transport of ``httpx``, over a connection pool of ``httpcore`` whose
network backend is :mod:`cloister.client.httpcore_backend`'s, so pools, HTTP/2 and tunnels through
proxies are ``httpcore``'s own.

A client that is given this as its ``transport`` takes no proxy of the environment to itself; name a
proxy where the :class:`~cloister.client.Enclave` is made. ``proxy`` and ``mounts`` of the *client*
would put transports beside this one that attest nothing.
"""

import contextlib
import types
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Self, cast

import httpcore
import httpx

from cloister.client.enclave import Enclave
from cloister.client.enclave_url import EnclaveUrl, not_an_enclave
from cloister.client.httpcore_backend import AttestingAsyncBackend, AttestingBackend
from cloister.errors import PolicyError, UsageError

API_KEY_HEADER = "api-key"


class AttestedTransport(httpx.BaseTransport):
    """Talks to the enclaves given, each over attested connections, and to nobody else.

    Args:
        enclaves: At least one. Redirects are followed between them, if the client follows any.
        http2: Offer HTTP/2 (needs ``httpx[http2]``).
        limits: Connections kept and opened, for each enclave.

    Raises:
        UsageError: No enclave, one twice, or a proxy of a kind that is not known.
        MissingInput, KeyFileError: The CA file of one cannot be used.
    """

    def __init__(
        self, *enclaves: Enclave, http2: bool = False, limits: httpx.Limits | None = None
    ) -> None:
        self._enclaves = _by_origin(enclaves)
        self._pools = {
            url: _pool(one, http2=http2, limits=limits) for url, one in self._enclaves.items()
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request.

        Raises:
            PolicyError: Its host is none of the enclaves.
            AttestationError: The enclave did not prove what its policy asks; nothing was sent.
            TransportError: Its document could not be fetched; nothing was sent.
            httpx.TransportError: As with every transport.
        """
        enclave = _chosen(self._enclaves, request)
        stream = cast("httpx.SyncByteStream", request.stream)
        asked = _asked(request, enclave, stream)
        with _httpx_errors():
            answer = self._pools[enclave.url].handle_request(asked)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(cast("Iterable[bytes]", answer.stream)),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Closes the connections; the enclaves are whose they were."""
        for pool in self._pools.values():
            pool.close()

    def __enter__(self) -> Self:
        return self


class AsyncAttestedTransport(httpx.AsyncBaseTransport):
    """:class:`AttestedTransport` for :class:`httpx.AsyncClient`.

    A check that has to ask does so on a thread, once for all the tasks that wait for it.
    """

    def __init__(
        self, *enclaves: Enclave, http2: bool = False, limits: httpx.Limits | None = None
    ) -> None:
        self._enclaves = _by_origin(enclaves)
        self._pools = {
            url: _async_pool(one, http2=http2, limits=limits) for url, one in self._enclaves.items()
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request; raises as :meth:`AttestedTransport.handle_request`."""
        enclave = _chosen(self._enclaves, request)
        stream = cast("httpx.AsyncByteStream", request.stream)
        asked = _asked(request, enclave, stream)
        with _httpx_errors():
            answer = await self._pools[enclave.url].handle_async_request(asked)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_AsyncBody(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Closes the connections; the enclaves are whose they were."""
        for pool in self._pools.values():
            await pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: types.TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx_errors():
            async for piece in self._answer.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


def _by_origin(enclaves: tuple[Enclave, ...]) -> dict[EnclaveUrl, Enclave]:
    found = {one.url: one for one in enclaves}
    if not found or len(found) != len(enclaves):
        raise UsageError("a transport needs at least one enclave, and each once")
    return found


def _chosen(enclaves: dict[EnclaveUrl, Enclave], request: httpx.Request) -> Enclave:
    try:
        return enclaves[EnclaveUrl.origin_of(str(request.url))]
    except (KeyError, UsageError):
        raise _refused(request) from None


def _refused(request: httpx.Request) -> PolicyError:
    return not_an_enclave(
        str(request.url), "transport", hint="give the transport an `Enclave` with its own policy"
    )


def _asked(
    request: httpx.Request, enclave: Enclave, stream: httpx.SyncByteStream | httpx.AsyncByteStream
) -> httpcore.Request:
    headers = request.headers.raw
    if enclave.api_key is not None and API_KEY_HEADER not in request.headers:
        headers = [*headers, (API_KEY_HEADER.encode(), enclave.api_key.encode())]
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=headers,
        content=stream,
        extensions=request.extensions,
    )


def _pool(enclave: Enclave, *, http2: bool, limits: httpx.Limits | None) -> httpcore.ConnectionPool:
    bounds = httpx.Limits() if limits is None else limits
    proxy = enclave.proxy()
    through = None if proxy is None else _proxy(proxy)
    return httpcore.ConnectionPool(
        ssl_context=enclave.tls_context(),
        proxy=through,
        max_connections=_or(bounds.max_connections, MAX_CONNECTIONS),
        max_keepalive_connections=_or(bounds.max_keepalive_connections, MAX_KEEPALIVE),
        keepalive_expiry=bounds.keepalive_expiry,
        http2=http2,
        network_backend=AttestingBackend(enclave, hops=_hops(through)),
    )


def _async_pool(
    enclave: Enclave, *, http2: bool, limits: httpx.Limits | None
) -> httpcore.AsyncConnectionPool:
    bounds = httpx.Limits() if limits is None else limits
    proxy = enclave.proxy()
    through = None if proxy is None else _proxy(proxy)
    return httpcore.AsyncConnectionPool(
        ssl_context=enclave.tls_context(),
        proxy=through,
        max_connections=_or(bounds.max_connections, MAX_CONNECTIONS),
        max_keepalive_connections=_or(bounds.max_keepalive_connections, MAX_KEEPALIVE),
        keepalive_expiry=bounds.keepalive_expiry,
        http2=http2,
        network_backend=AttestingAsyncBackend(enclave, hops=_hops(through)),
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _proxy(text: str) -> httpcore.Proxy:
    url = httpx.URL(text)
    if url.scheme not in {"http", "https"}:
        raise UsageError(f"a proxy is reached by http or https here, got {url.scheme!r:.20}")
    auth = (url.username, url.password) if url.username or url.password else None
    return httpcore.Proxy(
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        auth=auth,
    )


def _hops(proxy: httpcore.Proxy | None) -> int:
    """How many TLS handshakes come before the enclave's: that of a proxy reached by ``https``."""
    return 1 if proxy is not None and proxy.url.scheme == b"https" else 0


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    try:
        yield
    except tuple(_ERRORS) as problem:
        for theirs, ours in _ERRORS.items():
            if isinstance(problem, theirs):
                raise ours(str(problem)) from problem
        raise


# The narrow ones first.
_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}
MAX_CONNECTIONS = 100
MAX_KEEPALIVE = 20
"""The defaults of ``httpx`` (Advanced usage, Resource limits)."""
