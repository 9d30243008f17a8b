"""One enclave on this machine: what stands around it from before it starts until after it ended.

The order matters. The agent API listens before the enclave exists, because a boot asks it first;
clients are accepted when the enclave is ready; at the end clients go first, then the enclave
finishes and sends its last logs, and the agent API goes last.

Starting the enclave itself is the runner's part.
"""

import dataclasses
import datetime as dt
import os
import pathlib
import socket
import threading
import types
import uuid
from collections.abc import Callable
from typing import Self

import uvicorn
from starlette.applications import Starlette

from cloister._native import hostplane
from cloister.errors import RunnerError, TransportError
from cloister.host import health
from cloister.host.agent import LOOK_EVERY, agent_app
from cloister.host.listening import listen_error
from cloister.host.objects import ObjectStore
from cloister.host.ports import CertificateAuthority, Clock, EventSink, Platform, utc_now
from cloister.host.relay import Relay
from cloister.host.stats import AgentStats, RelayStats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """Where everything of one enclave is.

    Args:
        enclave: Its uuid.
        ingress: Address that the enclave accepts clients on.
        health: Address of its health port.
        agent: Address that the enclave calls; this side listens.
        listen: Where clients connect to; ``None``: they come by a relay of the caller's.
        run_dir: Folder of sockets of our own; 0700, its path short (unix(7): 107 bytes a socket).
        log_dir: Folder of the log segments.
        proxy_protocol: Tell the enclave who connects; it requires that on its ingress.
        max_connections: Clients at one time.
        workers: Threads of the relay.
        look_every: How long the platform is let wait for a change at a time; longer for one that
            is reached over a network.
        objects: Where the enclave's objects are.
    """

    enclave: uuid.UUID
    ingress: str
    health: str
    agent: str
    listen: str | None
    run_dir: pathlib.Path
    log_dir: pathlib.Path
    objects: ObjectStore
    proxy_protocol: bool = True
    max_connections: int = 10_000
    workers: int = 1
    look_every: dt.timedelta = LOOK_EVERY


class Host:
    """Agent API, health poller and relay of one enclave. No two share anything.

    Call :meth:`start`, start the enclave, :meth:`wait_ready`, :meth:`accept`; at the end
    :meth:`drain`, wait for the enclave, :meth:`stop`.

    Args:
        options: Where everything is.
        platform: Where bundles come from.
        certificates: Who signs the enclave's certificate.
        events: Told of what the enclave reports.
        health_changed: Told when its state changed.
        clock: The time.
    """

    def __init__(  # noqa: PLR0913 - the parts, keyword-only
        self,
        options: HostOptions,
        *,
        platform: Platform,
        certificates: CertificateAuthority,
        events: EventSink = lambda *_: None,
        health_changed: Callable[[health.Health], None] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._options = options
        self._is_ending = False
        self._socket_path = options.run_dir / "agent-app.sock"
        app = agent_app(
            platform,
            certificates,
            objects=options.objects,
            events=events,
            clock=clock,
            look_every=options.look_every,
            is_ending=lambda: self._is_ending,
        )
        self._app = _AppServer(app, self._socket_path)
        self._poller = health.Poller(options.health, changed=health_changed)
        self._agent: hostplane.AgentServer | None = None
        self._relay: Relay | None = None
        if options.listen is not None:
            self._relay = Relay(
                options.listen,
                options.ingress,
                proxy_protocol=options.proxy_protocol,
                max_connections=options.max_connections,
                workers=options.workers,
            )
        self._accepting = False

    def start(self) -> Self:
        """Makes the agent API ready for the enclave and begins to ask for its health.

        Raises:
            TransportError: An address cannot be listened on.
            RunnerError: The log folder cannot be used.
        """
        options = self._options
        self._app.start()
        try:
            self._agent = hostplane.AgentServer(
                options.agent,
                upstream=self._socket_path,
                log_dir=options.log_dir,
                enclave=str(options.enclave),
            )
        except OSError as problem:
            self._app.stop()
            if problem.errno is None:
                raise RunnerError(f"the logs cannot be written: {problem}") from problem
            raise listen_error(options.agent, problem) from problem
        self._poller.start()
        return self

    def wait_ready(self, timeout: dt.timedelta) -> health.Health:
        """Waits until the enclave serves.

        Raises:
            RunnerError: It failed, or was not ready in time; the message says what it said last.
        """
        answer = self._poller.wait_ready(timeout)
        if not answer.ready:
            said = f": {answer.reason}" if answer.reason else ""
            raise RunnerError(f"the enclave is not ready, its state is {answer.state}{said}")
        return answer

    def accept(self) -> str:
        """Begins to accept clients, and returns the address.

        Raises:
            PermissionRefused: This user may not listen there.
            TransportError: The address cannot be listened on.
            RunnerError: This host has no relay of its own.
        """
        relay = self._own_relay()
        relay.start()
        self._accepting = True
        return relay.address

    @property
    def health(self) -> health.Health:
        """The enclave's last answer."""
        return self._poller.latest

    def relay_stats(self) -> RelayStats:
        """Counters of the relay, once it accepts."""
        return self._own_relay().stats()

    def agent_stats(self) -> AgentStats:
        """Counters of the agent server, once started."""
        if self._agent is None:
            raise RunnerError("the host was not started")
        return self._agent.stats()

    def drain(self, grace: dt.timedelta) -> int:
        """Stops accepting, tells the enclave to drain, and waits for the clients there are.

        The enclave ends by itself afterwards; its last logs are still taken until :meth:`stop`.

        Returns:
            How many clients were cut off after ``grace``.
        """
        told = threading.Thread(target=self._tell_enclave, name="tell-drain")
        told.start()
        left = self._relay.drain(grace) if self._relay and self._accepting else 0
        told.join()
        return left

    def cut(self) -> None:
        """Closes the connections of clients that are left, and ends a :meth:`drain` with them."""
        if self._relay is not None:
            self._relay.stop()

    def stop(self) -> None:
        """Ends everything, in order; harmless when called again."""
        self._is_ending = True
        self.cut()
        self._poller.stop()
        if self._agent is not None:
            self._agent.stop()
        self._app.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()

    def _own_relay(self) -> Relay:
        if self._relay is None:
            raise RunnerError("clients come to this enclave by another relay")
        return self._relay

    def _tell_enclave(self) -> None:
        try:
            health.drain(self._options.health)
        except TransportError:
            return  # It is gone already, and with it what would have to be drained.


class _AppServer:
    """The agent application under uvicorn, on a thread, behind a socket only this user can use."""

    def __init__(self, app: Starlette, path: pathlib.Path) -> None:
        self._path = path
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                http="h11",
                loop="asyncio",
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        # Bound here and not by uvicorn, which opens its socket to everybody.
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            listening.listen(_BACKLOG)
        except OSError as problem:
            listening.close()
            raise listen_error(f"unix:{self._path}", problem) from problem
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="agent-app"
        )
        self._thread.start()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._thread = None
        self._path.unlink(missing_ok=True)


_BACKLOG = 64
