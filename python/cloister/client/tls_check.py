"""The certificate of a TLS connection, and ``urllib3`` connections that show theirs first.

Of ``urllib3`` only public hooks are used: ``HTTPSConnection.connect``, ``ConnectionCls`` of a pool,
and ``pool_classes_by_scheme`` of a pool manager. ``connect`` runs for each new connection, resumed
TLS sessions and those behind a proxy included, after the handshake and the host name check.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool
from urllib3.poolmanager import PoolManager

from cloister.errors import TransportError

Check = Callable[[bytes], object]
"""Takes the leaf certificate in DER; raises when the connection must not be used."""

Opened = Callable[[socket.socket], object]
"""Takes the socket of a connection that may be used."""


def install(manager: PoolManager, check: Check, opened: Opened | None = None) -> None:
    """Makes every ``https`` connection of ``manager`` pass ``check`` first; others are not made.

    What the manager uses now stays underneath, so a manager for a proxy keeps going through it.

    Args:
        manager: Makes the connections.
        check: Called with the certificate of each.
        opened: Called with the socket of each that passed.
    """
    pools: dict[str, type[HTTPConnectionPool]] = {
        "https": _pool_class(manager.pool_classes_by_scheme["https"], check, opened)
    }
    manager.pool_classes_by_scheme = pools


def _pool_class(
    base: type[HTTPConnectionPool], check: Check, opened: Opened | None
) -> type[HTTPConnectionPool]:
    connection_class = _connection_class(base.ConnectionCls, check, opened)
    return type("AttestedPool", (base,), {"ConnectionCls": connection_class})


def _connection_class(
    base: Any,  # noqa: ANN401 - urllib3's own, or that of SOCKS
    check: Check,
    opened: Opened | None,
) -> Any:  # noqa: ANN401 - as above
    class Connection(base):  # type: ignore[misc]  # known when it runs
        """Shows its certificate when it is made."""

        def connect(self) -> None:
            super().connect()
            try:
                check(_leaf(self))
                if opened is not None:
                    opened(self.sock)
            except BaseException:
                self.close()
                raise

    return Connection


def _leaf(connection: Any) -> bytes:  # noqa: ANN401 - an HTTPSConnection
    if connection.proxy_is_forwarding:
        raise TransportError("a proxy that forwards instead of tunneling would end the TLS itself")
    if not connection.is_verified:
        raise TransportError("the TLS certificate of the connection was not verified")
    # An `ssl.SSLSocket`, or urllib3's stand-in for TLS inside TLS.
    return _certificate(connection.sock)


def leaf_of(tls: object, context: ssl.SSLContext) -> bytes:
    """The leaf certificate of a connection, in DER.

    Args:
        tls: An :class:`ssl.SSLSocket` or :class:`ssl.SSLObject` after its handshake.
        context: What it was made with.

    Raises:
        TransportError: The ordinary checks were off, or there is no TLS.
    """
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise TransportError("the TLS certificate of the connection was not verified")
    return _certificate(tls)


def _certificate(tls: Any) -> bytes:  # noqa: ANN401 - whatever has TLS's getter
    # By position: an SSLSocket, an SSLObject and what `httpcore` shows of a socket name it in
    # different ways.
    leaf = tls.getpeercert(True) if hasattr(tls, "getpeercert") else None  # noqa: FBT003
    if not isinstance(leaf, bytes):
        raise TransportError("the connection has no TLS certificate")
    return leaf
