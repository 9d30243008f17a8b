"""Network backends of ``httpcore`` whose TLS streams are handed out after attestation alone.

``httpcore`` asks its backend for a stream, and the stream for TLS. What ``start_tls`` returns here
has passed the certificate and host name checks of the context and then the enclave's, so nothing of
a request can be written to one that has not. Through a proxy the tunnel is made in clear, or inside
the proxy's own TLS, and the enclave's handshake is the last one.
"""

import ssl
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.to_thread
import httpcore

from cloister.client.core import Ask
from cloister.client.enclave import Enclave
from cloister.client.tls_check import leaf_of


class AttestingBackend(httpcore.NetworkBackend):
    """Connects to one enclave.

    Args:
        enclave: Checks the connections.
        hops: TLS handshakes before the enclave's.
    """

    def __init__(self, enclave: Enclave, *, hops: int) -> None:
        self._enclave = enclave
        self._hops = hops
        self._base = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects; what comes back has no TLS and is for a tunnel or for ``start_tls``."""
        stream = self._base.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._enclave, self._hops)

    def sleep(self, seconds: float) -> None:
        """Waits between two attempts."""
        self._base.sleep(seconds)


class AttestingAsyncBackend(httpcore.AsyncNetworkBackend):
    """:class:`AttestingBackend` for event loops."""

    def __init__(self, enclave: Enclave, *, hops: int) -> None:
        self._enclave = enclave
        self._hops = hops
        self._base = httpcore.AnyIOBackend()
        self._asking = anyio.Lock()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects; what comes back has no TLS and is for a tunnel or for ``start_tls``."""
        stream = await self._base.connect_tcp(host, port, timeout, local_address, socket_options)
        return _AsyncStream(stream, self._check, self._hops)

    async def sleep(self, seconds: float) -> None:
        """Waits between two attempts."""
        await self._base.sleep(seconds)

    async def _check(self, certificate: bytes) -> None:
        attestor = self._enclave.attestor
        found = attestor.begin(certificate)
        if not isinstance(found, Ask):
            return
        if found.nonce is not None:
            await anyio.to_thread.run_sync(attestor.answer, found, abandon_on_cancel=True)
            return
        # One task at a time, or all that wait would each wait on a thread.
        async with self._asking:
            await anyio.to_thread.run_sync(attestor.answer, found, abandon_on_cancel=True)


class _Stream(httpcore.NetworkStream):
    """A stream before the enclave's TLS."""

    def __init__(self, base: httpcore.NetworkStream, enclave: Enclave, hops: int) -> None:
        self._base = base
        self._enclave = enclave
        self._hops = hops

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._base.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._base.write(buffer, timeout)

    def close(self) -> None:
        self._base.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._base.start_tls(ssl_context, server_hostname, timeout)
        if self._hops:
            return _Stream(stream, self._enclave, self._hops - 1)
        try:
            self._enclave.attestor.check(leaf_of(stream.get_extra_info("ssl_object"), ssl_context))
        except BaseException:
            stream.close()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore has it
        return self._base.get_extra_info(info)


class _AsyncStream(httpcore.AsyncNetworkStream):
    """A stream before the enclave's TLS."""

    def __init__(self, base: httpcore.AsyncNetworkStream, check: Any, hops: int) -> None:  # noqa: ANN401 - a coroutine function
        self._base = base
        self._check = check
        self._hops = hops

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as httpcore has it
        return await self._base.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as httpcore has it
        await self._base.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._base.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._base.start_tls(ssl_context, server_hostname, timeout)
        if self._hops:
            return _AsyncStream(stream, self._check, self._hops - 1)
        try:
            await self._check(leaf_of(stream.get_extra_info("ssl_object"), ssl_context))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as httpcore has it
        return self._base.get_extra_info(info)
