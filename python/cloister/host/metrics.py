"""``/metrics`` and ``/health`` of a host process, in Prometheus' text format.

A scrape every few seconds, so this is Python; nothing here is on the way of a client's byte.
"""

import http.server
import json
import socket
import threading
import types
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from cloister.errors import UsageError
from cloister.host.listening import listen_error
from cloister.host.stats import RelayStats, ServiceState

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus exposition format
_HIGHEST_PORT = 65_535
_RELAY = {
    "accepted": ("counter", "connections_total", "Connections accepted."),
    "active": ("gauge", "connections_open", "Connections open."),
    "refused": ("counter", "refused_total", "Connections over the limit, closed at once."),
    "connect_errors": ("counter", "connect_errors_total", "Connections that found nobody."),
    "failed": ("counter", "failed_total", "Connections that ended with an error."),
    "idle_closed": ("counter", "idle_closed_total", "Connections closed for silence."),
    "bytes_in": ("counter", "in_bytes_total", "Bytes from the accepted side."),
    "bytes_out": ("counter", "out_bytes_total", "Bytes to the accepted side."),
}


def relay_metrics(stats: RelayStats) -> str:
    """The counters of a relay as text."""
    return _relays([("", stats)])


def host_metrics(states: Sequence[ServiceState], *, lost_events: int) -> str:
    """The state of a host's enclaves, and the counters of their relays, as text.

    Args:
        states: One for each enclave.
        lost_events: Events that the platform was not told of.
    """
    lines = []
    for name, (kind, meaning, value) in _HOST.items():
        lines += _family(
            name, kind, meaning, [(_of(state.enclave), value(state)) for state in states]
        )
    lines += _family(
        "cloister_host_events_lost_total",
        "counter",
        "Events that the platform was not told of.",
        [("", lost_events)],
    )
    relays = [(_of(state.enclave), state.relay) for state in states if state.relay is not None]
    return "\n".join(lines) + "\n" + _relays(relays)


def _relays(relays: Sequence[tuple[str, RelayStats]]) -> str:
    lines = []
    for key, (kind, name, meaning) in _RELAY.items():
        values: list[tuple[str, object]] = [
            (labels, {**stats}[key])  # a copy: a key that is not written out is none of a TypedDict
            for labels, stats in relays
        ]
        lines += _family(f"cloister_relay_{name}", kind, meaning, values)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, meaning: str, values: Sequence[tuple[str, object]]) -> list[str]:
    """One metric with all its samples: the format wants them together."""
    samples = [f"{name}{labels} {value}" for labels, value in values]
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples]


def _of(enclave: uuid.UUID) -> str:
    return f'{{enclave="{enclave}"}}'


_HOST: dict[str, tuple[str, str, Callable[[ServiceState], int]]] = {
    "cloister_host_ready": (
        "gauge",
        "Whether the enclave says that it serves.",
        lambda state: int(state.is_ready),
    ),
    "cloister_host_platform_known": (
        "gauge",
        "Whether the platform said what is to run when it was asked last.",
        lambda state: int(state.knows_platform),
    ),
    "cloister_host_boots_total": (
        "counter",
        "Boots that became ready.",
        lambda state: state.boots,
    ),
    "cloister_host_failures_total": (
        "counter",
        "Boots that did not, or that ended by themselves.",
        lambda state: state.failures,
    ),
}


class MetricsServer:
    """Serves one text, made anew for each scrape, inside a ``with`` block.

    Args:
        listen: ``HOST:PORT``, ``tcp:`` before it allowed; port 0 takes any free one.
        collect: Makes the text.
        health: Says whether all is well, and more as JSON; always well when absent.

    Raises:
        UsageError: ``listen`` cannot be read.
        TransportError: Nobody can listen there.
    """

    def __init__(
        self,
        listen: str,
        collect: Callable[[], str],
        *,
        health: Callable[[], tuple[bool, dict[str, Any]]] = lambda: (True, {"state": "ready"}),
    ) -> None:
        host, port = _parse(listen)
        try:
            self._server = _server(host, port, collect, health)
        except OSError as problem:
            raise listen_error(f"tcp:{host}:{port}", problem) from problem
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics"
        )

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _parse(listen: str) -> tuple[str, int]:
    host, colon, port = listen.removeprefix("tcp:").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not host
        or not (port.isascii() and port.isdigit())
        or int(port) > _HIGHEST_PORT
    ):
        raise UsageError("expected HOST:PORT for the metrics address")
    return host, int(port)


def _server(
    host: str,
    port: int,
    collect: Callable[[], str],
    health: Callable[[], tuple[bool, dict[str, Any]]],
) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        """Two paths, GET only."""

        timeout: ClassVar[float | None] = 5.0
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answers a scrape or a probe."""
            if self.path == "/metrics":
                self._answer(200, _CONTENT_TYPE, collect())
            elif self.path == "/health":
                is_well, said = health()
                text = json.dumps(said, separators=(",", ":")) + "\n"
                self._answer(200 if is_well else 503, "application/json", text)
            else:
                self._answer(404, "text/plain", "expected /metrics or /health\n")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def _answer(self, status: int, content_type: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        """Threads that do not outlive the process; IPv6 where the address is."""

        daemon_threads = True
        address_family: int = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server((host, port), Handler)
