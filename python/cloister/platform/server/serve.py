"""Runs the server: TLS 1.2 and newer, bounded, and a stop that answers what is in flight."""

import asyncio
import contextlib
import datetime as dt
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from cloister.errors import KeyFileError, PermissionRefused, TransportError
from cloister.platform.clock import Clock, system
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.server import setup, tls
from cloister.platform.server.app import make_app, make_parts
from cloister.platform.server.configuration import PlatformConfig

SILENT_SECONDS = 90.0  # above KEEP_ALIVE_SECONDS


def serve(
    config: PlatformConfig,
    *,
    is_ready: Callable[[str], None],
    clock: Clock = system,
) -> None:
    """Serves until SIGINT or SIGTERM, then answers what is in flight and returns.

    Args:
        config: What to serve.
        is_ready: Told the URL when clients are accepted.
        clock: The time.

    Raises:
        StoreError: The store cannot be opened.
        KeyFileError: Certificate or key cannot be used.
        TransportError: The address cannot be listened on.
        PermissionRefused: It may not be.
    """
    database = setup.open_store(config)
    with contextlib.ExitStack() as ends:
        ends.callback(database.close)
        context = tls_context(config, now=clock())
        listening = ends.enter_context(_listen(*config.listen))
        platform = EmbeddedPlatform(database, development_root=config.development_root, clock=clock)
        parts = make_parts(database, platform, clock=clock)
        _log_to_stderr()
        settings = uvicorn.Config(
            make_app(parts),
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
            limit_concurrency=MAX_CONCURRENT,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            http="h11",
            ssl_context_factory=lambda _config, _default: context,
            # Only a look at it decides that this is TLS; the context above is what is used.
            ssl_certfile=str(config.certificate or config.tls_folder / tls.CERTIFICATE_FILE),
            ssl_keyfile=str(config.key or config.tls_folder / tls.KEY_FILE),
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        server = BoundedServer(
            settings, parts.versions.close, lambda: is_ready(f"https://{shown}:{port}")
        )
        asyncio.run(server.serve(sockets=[listening]))


def tls_context(config: PlatformConfig, *, now: dt.datetime) -> ssl.SSLContext:
    """The context of the server; its own certificate is renewed when it has a month left.

    Raises:
        KeyFileError: Certificate or key cannot be used.
    """
    if config.certificate is None:
        tls.ensure_certificate(config.tls_folder, config.names, now=now)
    certificate = config.certificate or config.tls_folder / tls.CERTIFICATE_FILE
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, config.key or config.tls_folder / tls.KEY_FILE)
    except (OSError, ssl.SSLError) as problem:
        raise KeyFileError(
            f"the certificate `{certificate}` and its key cannot be used:"
            f" {problem.strerror or type(problem).__name__}"
        ) from None
    return context


class BoundedServer(uvicorn.Server):
    """uvicorn, with an end for every wait: of a stop, and of a connection without a request.

    Args:
        config: What it serves.
        stopping: Called when it stops, before it waits for what is in flight: ends long polls.
        started: Called when it accepts.
        silent_seconds: How long a connection may be without the whole head of a request.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        stopping: Callable[[], None],
        started: Callable[[], None],
        *,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        super().__init__(config)
        self._silent_seconds = silent_seconds
        self._stopping = stopping
        self._started = started
        self._silent_since: dict[Any, float] = {}

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends in order, and that is all: uvicorn would end the process by the signal after it."""
        before = {number: signal.signal(number, self.handle_exit) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept."""
        await super().startup(sockets=sockets)
        self._started()

    async def on_tick(self, counter: int) -> bool:
        """Looks ten times a second whether to stop; once a second at connections without a request.

        uvicorn gives a connection as long as it likes for the head of a request.
        """
        if not counter % 10:
            self._cut_silent()
        return await super().on_tick(counter)

    def _cut_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        silent = {one for one in self.server_state.connections if _is_idle(one)}
        self._silent_since = {one: self._silent_since.get(one, now) for one in silent}
        for connection, since in self._silent_since.items():
            if now - since > self._silent_seconds:
                _abort(connection)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, ends long polls, answers what is in flight."""
        self._stopping()
        ending = asyncio.ensure_future(super().shutdown(sockets=sockets))
        while not (await asyncio.wait([ending], timeout=LOOK_SECONDS))[0]:
            # Over TLS a polite end waits for the client.
            for connection in filter(_is_idle, list(self.server_state.connections)):
                _abort(connection)
        await ending


def _is_idle(connection: object) -> bool:
    """Whether a connection of uvicorn has neither a request nor the rest of an answer."""
    cycle = getattr(connection, "cycle", None)
    transport = getattr(connection, "transport", None)
    has_nothing_to_say = transport is None or not transport.get_write_buffer_size()
    return (cycle is None or cycle.response_complete) and has_nothing_to_say


def _abort(connection: object) -> None:
    transport = getattr(connection, "transport", None)
    if transport is not None:
        transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except PermissionError:
        raise PermissionRefused(
            f"cannot listen on {host}:{port}: not permitted",
            hint="a port below 1024 needs CAP_NET_BIND_SERVICE; the systemd unit has a line for it",
        ) from None
    except OSError as problem:
        raise TransportError(
            f"cannot listen on {host}:{port}: {problem.strerror or problem}"
        ) from None


def _log_to_stderr() -> None:
    """Requests and failures go to standard error, a line each: the journal, under systemd."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("cloister.platform", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name.startswith("cloister") else logging.WARNING)


STOPS = (signal.SIGINT, signal.SIGTERM)
MAX_CONCURRENT = 2048  # connections and requests; more are answered with 503
MAX_HEAD_BYTES = 16 * 1024
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 10
LOOK_SECONDS = 0.1
BACKLOG = 512
