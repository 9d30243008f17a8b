"""Relay, agent server and small requests: ``cloister-hostplane`` for Python."""

import datetime as dt
import os
from typing import final

from cloister.host.stats import AgentStats, RelayStats

__all__ = ["AgentServer", "Relay", "check_address", "request"]

@final
class Relay:
    """A relay that runs from when it is made until ``stop``, on threads of its own.

    Addresses are ``tcp:HOST:PORT``, ``unix:PATH`` or ``vsock:CID:PORT``.

    Raises:
        OSError: It cannot listen there.
        ValueError: An address cannot be read.
    """

    def __new__(
        cls,
        listen: str,
        to: str,
        *,
        proxy_protocol: bool,
        max_connections: int,
        connect_timeout: dt.timedelta,
        idle_timeout: dt.timedelta,
        workers: int,
    ) -> Relay: ...
    @property
    def address(self) -> str:
        """Where it listens, the real port where 0 was asked for."""

    def stats(self) -> RelayStats:
        """Counters."""

    def retarget(self, to: str) -> None:
        """Lets connections that are accepted from now on go there; those there are stay.

        Raises:
            ValueError: The address cannot be read.
        """

    def drain(self, grace: dt.timedelta) -> int:
        """Stops accepting, waits up to ``grace``, stops; how many connections were cut off."""

    def stop(self) -> None:
        """Closes every connection and ends the threads; a second call does nothing."""

@final
class AgentServer:
    """The Rust half of the agent API of one enclave, on threads of its own.

    Raises:
        OSError: It cannot listen there, or the log folder cannot be used.
        ValueError: The address cannot be read.
    """

    def __new__(
        cls,
        listen: str,
        *,
        upstream: str | os.PathLike[str],
        log_dir: str | os.PathLike[str],
        enclave: str,
    ) -> AgentServer: ...
    @property
    def address(self) -> str:
        """Where it listens."""

    def stats(self) -> AgentStats:
        """Counters."""

    def stop(self) -> None:
        """Closes every connection, finishes the batch being written, ends the threads."""

def request(
    address: str, method: str, path: str, *, timeout: dt.timedelta, body: bytes | None = None
) -> tuple[int, bytes]:
    """Sends one HTTP/1.1 request and returns status and body, at most 1 MiB.

    Raises:
        OSError: No connection, or the answer broke off or is not HTTP/1.1.
        TimeoutError: No whole answer within ``timeout``.
        ValueError: ``address``, ``method`` or ``path`` cannot be read.
    """

def check_address(text: str) -> str:
    """Reads an address and writes it back.

    Raises:
        ValueError: It is not ``tcp:HOST:PORT``, ``unix:PATH`` or ``vsock:CID:PORT``.
    """
