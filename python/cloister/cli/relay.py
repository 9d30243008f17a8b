"""``cloister relay``: move bytes between TCP, Unix and vsock, until told to stop."""

import contextlib
import datetime as dt
import enum
import resource
import signal
import threading
from collections.abc import Iterator
from typing import Annotated

import typer

from cloister.cli import output, params
from cloister.host.metrics import MetricsServer, relay_metrics
from cloister.host.relay import Relay
from cloister.host.stats import RelayStats

_MAX_CONNECTIONS = 10_000


class ProxyProtocol(enum.Enum):
    """Versions of the PROXY protocol that can be sent."""

    V2 = "v2"


def _duration(value: str | dt.timedelta) -> dt.timedelta:
    """A duration; typer passes a default through the same door."""
    return value if isinstance(value, dt.timedelta) else params.duration(value)


def relay(  # noqa: PLR0913 - one parameter an option
    *,
    listen: Annotated[
        str, typer.Option(metavar="ADDR", help="Where to accept: tcp:, unix: or vsock:.")
    ],
    to: Annotated[str, typer.Option(metavar="ADDR", help="Where to connect, the same kinds.")],
    proxy_protocol: Annotated[
        ProxyProtocol | None, typer.Option(help="Send a PROXY header first.")
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=f"{_MAX_CONNECTIONS}, or what open files allow",
            help="Connections at one time; more are closed at once.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Threads.")] = 1,
    connect_timeout: Annotated[
        dt.timedelta,
        typer.Option(
            parser=_duration,
            metavar="TIME",
            show_default="5s",
            help="How long connecting may take.",
        ),
    ] = dt.timedelta(seconds=5),
    idle_timeout: Annotated[
        dt.timedelta,
        typer.Option(
            parser=_duration,
            metavar="TIME",
            show_default="1h",
            help="Close a connection this long silent.",
        ),
    ] = dt.timedelta(hours=1),
    drain_timeout: Annotated[
        dt.timedelta,
        typer.Option(
            parser=_duration, metavar="TIME", show_default="30s", help="Grace after a signal."
        ),
    ] = dt.timedelta(seconds=30),
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve /metrics and /health there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Move bytes between TCP, Unix and vsock sockets, untouched.

    The address that was bound is printed on standard output. SIGTERM or Ctrl-C stops accepting and
    waits for the connections there are; a second one stops at once.

    Example:
      cloister relay --listen tcp:127.0.0.1:8443 --to unix:/run/app.sock
      cloister relay --listen tcp:0.0.0.0:443 --to vsock:16:7777 --proxy-protocol v2
    """
    possible = _allow_descriptors(max_connections or _MAX_CONNECTIONS)
    if max_connections is not None and possible < max_connections:
        output.warn(
            f"open files allow about {possible} connections; "
            f"`ulimit -n {_descriptors(max_connections)}` allows all {max_connections}"
        )
    moving = Relay(
        listen,
        to,
        proxy_protocol=proxy_protocol is not None,
        max_connections=max_connections or min(possible, _MAX_CONNECTIONS),
        connect_timeout=connect_timeout,
        idle_timeout=idle_timeout,
        workers=workers,
    )
    with _signals() as asked, contextlib.ExitStack() as stack:
        stack.enter_context(moving)
        shown = {"address": moving.address, "to": to}
        if metrics_listen is not None:
            serving = stack.enter_context(
                MetricsServer(metrics_listen, lambda: relay_metrics(moving.stats()))
            )
            shown["metrics"] = serving.address
        output.show(shown, as_json=as_json, text=moving.address)
        _watch(moving, asked)
        _drain(moving, asked, drain_timeout)
    _sum_up(moving.stats())


class _Asked:
    """How often a signal asked to stop."""

    def __init__(self) -> None:
        self.once = threading.Event()
        self.twice = threading.Event()

    def again(self, *_: object) -> None:
        (self.twice if self.once.is_set() else self.once).set()


@contextlib.contextmanager
def _signals() -> Iterator[_Asked]:
    asked = _Asked()
    before = {number: signal.signal(number, asked.again) for number in _STOPPING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(moving: Relay, asked: _Asked) -> None:
    """Waits for a signal and says meanwhile what goes wrong."""
    said = 0
    while not asked.once.wait(_LOOK_EVERY_S):
        stats = moving.stats()
        if stats["connect_errors"] > said and stats["last_error"]:
            closed = stats["connect_errors"] - said
            output.warn(f"{stats['last_error']} ({closed} connections closed)")
            said = stats["connect_errors"]


def _drain(moving: Relay, asked: _Asked, grace: dt.timedelta) -> None:
    active = moving.stats()["active"]
    if active:
        output.note(f"draining: {active} connections have {grace.total_seconds():.0f} s to end")
    done = threading.Event()

    def drain() -> None:
        moving.drain(grace)
        done.set()

    # In a thread of its own, so that a second signal is heard.
    thread = threading.Thread(target=drain, name="drain")
    thread.start()
    while not done.wait(_LISTEN_EVERY_S):
        if asked.twice.is_set():
            moving.stop()
    thread.join()


def _sum_up(stats: RelayStats) -> None:
    output.note(
        f"stopped: {stats['accepted']} connections, {stats['bytes_in']} bytes in, "
        f"{stats['bytes_out']} bytes out, {stats['refused']} refused, "
        f"{stats['connect_errors']} not connected"
    )


def _allow_descriptors(connections: int) -> int:
    """Raises the soft limit of open files as far as it may go; how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = _descriptors(connections)
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else max(soft, min(needed, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited:
        return connections
    return max(1, min(connections, (soft - _OTHER_DESCRIPTORS) // 2))


def _descriptors(connections: int) -> int:
    return 2 * connections + _OTHER_DESCRIPTORS


_STOPPING = (signal.SIGTERM, signal.SIGINT)
_LOOK_EVERY_S = 1.0
_LISTEN_EVERY_S = 0.05
_OTHER_DESCRIPTORS = 64
