"""The relay as a Python object: it moves bytes between TCP, Unix and vsock on Rust threads.

No byte passes through the interpreter. The relay knows nothing of TLS or HTTP and can read neither.
"""

import datetime as dt
import types
from typing import Self

from cloister._native import hostplane
from cloister.errors import UsageError
from cloister.host.listening import checked, listen_error
from cloister.host.stats import RelayStats


class Relay:
    """Accepts on one address and joins each connection to one it makes to another.

    It is not running until :meth:`start`; as a context manager it runs inside the block.

    Args:
        listen: ``tcp:HOST:PORT`` (port 0: any free one), ``unix:PATH`` or ``vsock:CID:PORT``.
        to: Where each accepted connection is joined to, the same kinds.
        proxy_protocol: Say first, in a PROXY v2 header, whom it accepted from.
        max_connections: Connections at one time; one more is closed at once and counted.
        connect_timeout: How long connecting may take.
        idle_timeout: A connection in which nothing moves for this long is closed.
        workers: Threads.

    Raises:
        UsageError: An address cannot be read, or a number is not positive.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings
        self,
        listen: str,
        to: str,
        *,
        proxy_protocol: bool = False,
        max_connections: int = 10_000,
        connect_timeout: dt.timedelta = dt.timedelta(seconds=5),
        idle_timeout: dt.timedelta = dt.timedelta(hours=1),
        workers: int = 1,
    ) -> None:
        self._listen = checked(listen, what="listen")
        self._to = checked(to, what="to")
        if max_connections < 1 or workers < 1:
            raise UsageError("max_connections and workers must be at least 1")
        if min(connect_timeout, idle_timeout) <= dt.timedelta(0):
            raise UsageError("connect_timeout and idle_timeout must be positive")
        self._proxy_protocol = proxy_protocol
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._workers = workers
        self._native: hostplane.Relay | None = None

    def start(self) -> Self:
        """Listens and returns; connections are served from now on.

        Raises:
            PermissionRefused: This user may not listen there.
            TransportError: The address is in use, or cannot be used.
        """
        if self._native is not None:
            raise UsageError("the relay was started before")
        try:
            self._native = hostplane.Relay(
                self._listen,
                self._to,
                proxy_protocol=self._proxy_protocol,
                max_connections=self._max_connections,
                connect_timeout=self._connect_timeout,
                idle_timeout=self._idle_timeout,
                workers=self._workers,
            )
        except OSError as problem:
            raise listen_error(self._listen, problem) from problem
        return self

    @property
    def address(self) -> str:
        """Where it listens, with the real port where 0 was asked for."""
        return self._running().address

    def stats(self) -> RelayStats:
        """Counters since the start; also after it was stopped."""
        return self._running().stats()

    def retarget(self, to: str) -> None:
        """Lets connections that are accepted from now on go to ``to``; those there are stay.

        Raises:
            UsageError: The address cannot be read, or the relay was not started.
        """
        self._running().retarget(checked(to, what="to"))

    def drain(self, grace: dt.timedelta) -> int:
        """Stops accepting, waits up to ``grace`` for the connections there are, then stops.

        Returns:
            How many connections were cut off.
        """
        return self._running().drain(grace)

    def stop(self) -> None:
        """Closes every connection and ends the threads; harmless when it is not running."""
        if self._native is not None:
            self._native.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> "hostplane.Relay":
        if self._native is None:
            raise UsageError("the relay was not started")
        return self._native
