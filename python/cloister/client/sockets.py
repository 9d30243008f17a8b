"""Attested TLS as a socket or as streams, for everything that is not ``requests`` or ``httpx``.

:func:`connect` returns an :class:`ssl.SSLSocket` of the standard library: for ``http.client``,
WebSocket clients that take a socket, and protocols that are not HTTP. :func:`open_connection` is
:func:`asyncio.open_connection`. Each returns after attestation or raises, so there is no connection
to write to before it.
"""

import asyncio
import base64
import contextlib
import http.client
import socket
import ssl
import urllib.parse
from collections.abc import Iterator, Sequence

from cloister.client.core import Ask
from cloister.client.enclave import Enclave
from cloister.client.tls_check import leaf_of
from cloister.errors import TransportError, UsageError

HTTP1 = ("http/1.1",)
"""The ALPN name of HTTP/1.1 (RFC 7301, 6)."""


def connect(
    enclave: Enclave,
    *,
    timeout: float | None = None,
    alpn: Sequence[str] = HTTP1,
    resume: ssl.SSLSocket | None = None,
) -> ssl.SSLSocket:
    """Connects, does the ordinary TLS checks, attests, and returns the socket.

    Like every :class:`ssl.SSLSocket` it is for one thread at a time.

    Args:
        enclave: Whom to connect to.
        timeout: Seconds for each step of connecting, and then of the socket; those of the enclave
            when there are none here.
        alpn: Protocols to offer; none for protocols that are not HTTP.
        resume: An earlier socket of this function to resume the TLS session of. The new connection
            is attested like any other.

    Raises:
        UsageError: A proxy of a kind that is not known.
        TransportError: No connection, no TLS with a certificate that the CA signed for this name,
            or no document.
        PolicyError: There are no measurements.
        AttestationError: The enclave did not prove what its policy asks.
    """
    context = _context(enclave, alpn) if resume is None else resume.context
    session = None if resume is None else resume.session
    host = enclave.url.host
    with _transport_errors(enclave):
        raw = _reach(enclave, enclave.timeout if timeout is None else timeout)
        with _closed_on_error(raw):
            tls = context.wrap_socket(
                raw, server_hostname=host, session=session, suppress_ragged_eofs=False
            )
    with _closed_on_error(tls):
        enclave.attestor.check(leaf_of(tls, context))
    return tls


async def open_connection(
    enclave: Enclave,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the time of each step, as in `connect`
    alpn: Sequence[str] = HTTP1,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """:func:`connect` for asyncio, as :func:`asyncio.open_connection` has it.

    Args:
        enclave: Whom to connect to.
        timeout: Seconds for reaching it and for TLS, each; those of the enclave without.
        alpn: Protocols to offer.

    Raises:
        CloisterError: As :func:`connect`.
    """
    seconds = enclave.timeout if timeout is None else timeout
    context = _context(enclave, alpn)
    with _transport_errors(enclave):
        raw = await asyncio.to_thread(_reach, enclave, seconds)
        with _closed_on_error(raw):
            raw.setblocking(False)  # noqa: FBT003 - as socket has it
            reader, writer = await asyncio.open_connection(
                sock=raw,
                ssl=context,
                server_hostname=enclave.url.host,
                ssl_handshake_timeout=seconds,
            )
    try:
        found = enclave.attestor.begin(leaf_of(writer.get_extra_info("ssl_object"), context))
        if isinstance(found, Ask):
            await asyncio.to_thread(enclave.attestor.answer, found)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def _context(enclave: Enclave, alpn: Sequence[str]) -> ssl.SSLContext:
    context = enclave.tls_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _reach(enclave: Enclave, seconds: float) -> socket.socket:
    """A TCP connection to the enclave, through a tunnel where a proxy leads to it."""
    proxy = enclave.proxy()
    target = enclave.url
    if proxy is None:
        reached = socket.create_connection((target.host, target.port), timeout=seconds)
    else:
        reached = _tunnel(proxy, target.host, target.port, seconds)
    reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reached


def _tunnel(proxy: str, host: str, port: int, seconds: float) -> socket.socket:
    parts = urllib.parse.urlsplit(proxy)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"a socket goes through proxies of http alone, got {parts.scheme!r:.20}")
    headers = {}
    if parts.username is not None:
        pair = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    asking = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=seconds)
    asking.set_tunnel(host, port, headers)
    try:
        asking.connect()
    except http.client.HTTPException as problem:
        asking.close()
        raise TransportError(f"the proxy made no tunnel: {problem!r:.100}") from problem
    return asking.sock


@contextlib.contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _transport_errors(enclave: Enclave) -> Iterator[None]:
    """The system's errors as ours: which enclave, and what to do."""
    try:
        yield
    except ssl.SSLCertVerificationError as problem:
        raise TransportError(
            f"TLS with {enclave.url} failed: {problem.verify_message}",
            hint="give the CA that signed its certificate, by `ca_file`",
        ) from problem
    except ssl.SSLError as problem:
        raise TransportError(f"TLS with {enclave.url} failed: {problem.reason}") from problem
    except TimeoutError as problem:
        raise TransportError(f"{enclave.url} did not answer in time") from problem
    except OSError as problem:
        raise TransportError(f"cannot reach {enclave.url}: {problem}") from problem
