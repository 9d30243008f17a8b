"""One boot of an enclave, from its run directory to its last log line.

The enclave with what stands around it: sockets, agent API, health, and a relay of its own where it
has one. What is started is ended in order: clients first, then the enclave, which finishes and
sends its last logs, then the agent API and the run directory. Whatever fails on the way, all that
was started before is ended.
"""

import collections
import contextlib
import dataclasses
import datetime as dt
import pathlib
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping

from cloister.errors import RunnerError
from cloister.host import run_dir
from cloister.host.agent import LOOK_EVERY
from cloister.host.health import Health, metrics
from cloister.host.objects import ObjectStore
from cloister.host.ports import CertificateAuthority, EventSink, Platform
from cloister.host.supervisor import Host, HostOptions
from cloister.runners import Enclave, Exit, Launch, Runner

Console = Callable[[str], None]
"""Told each line of an enclave's console, printable and bounded."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BootOptions:
    """What is started, and how.

    Args:
        enclave: Its uuid.
        image: The EIF.
        runtime: Folders in one of which the run directory is made.
        log_dir: Folder of the log segments.
        objects: Where the enclave's objects are.
        listen: Where clients connect; ``None``: they come by a relay of the caller's.
        cpus: Processors; ``None`` for no bound.
        memory_bytes: Memory; ``None`` for no bound.
        debug: Start it as a debug enclave.
        drain_ms: How long the enclave may take to finish what is in flight.
        start_timeout: How long it may take to be ready.
        look_every: How long the platform is let wait for a change at a time.
    """

    enclave: uuid.UUID
    image: pathlib.Path
    runtime: tuple[pathlib.Path, ...]
    log_dir: pathlib.Path
    objects: ObjectStore
    drain_ms: int
    start_timeout: dt.timedelta
    listen: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    debug: bool = False
    look_every: dt.timedelta = LOOK_EVERY


class Boot:
    """One boot. :meth:`start` it on a thread that outlives it: a launcher dies with its thread.

    Args:
        options: What is started.
        runner: Makes the way it is run, given who is told of its console.
        platform: Where bundles come from.
        certificates: Who signs the enclave's certificate.
        events: Told of what the enclave reports.
        console: Told of its console.
        end_waits: Ends waits at the platform, so that the agent API can stop.
        closed: Called when everything has ended, also when it never began; harmless when repeated.
    """

    def __init__(  # noqa: PLR0913 - the parts, keyword-only
        self,
        options: BootOptions,
        *,
        runner: Callable[[Console], Runner],
        platform: Platform,
        certificates: CertificateAuthority,
        events: EventSink,
        console: Console,
        end_waits: Callable[[], None],
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._runner = runner(self._heard)
        self._console = console
        self._last_lines: collections.deque[str] = collections.deque(maxlen=CONSOLE_LINES)
        self._ends = contextlib.ExitStack()
        self._cancelled = threading.Event()
        self._enclave: Enclave | None = None
        self._deadline = float("inf")
        self._ends.callback(closed)
        self._ends.callback(end_waits)
        try:
            folder = run_dir.make(*options.runtime)
            self._ends.callback(run_dir.remove, folder)
            endpoints = self._runner.prepare(folder)
            self._host = Host(
                HostOptions(
                    enclave=options.enclave,
                    ingress=endpoints.ingress,
                    health=endpoints.health,
                    agent=endpoints.agent,
                    listen=options.listen,
                    run_dir=folder,
                    log_dir=options.log_dir,
                    objects=options.objects,
                    look_every=options.look_every,
                ),
                platform=platform,
                certificates=certificates,
                events=events,
            )
        except BaseException:
            self._ends.close()
            raise
        self.ingress = endpoints.ingress
        """Address that the enclave accepts clients on, each with a PROXY header."""
        self._health_address = endpoints.health
        self._end_waits = end_waits
        self._launch = Launch(
            image=options.image,
            run_dir=folder,
            module_id=module_id(),
            memory_bytes=options.memory_bytes,
            cpus=options.cpus,
            debug=options.debug,
            grace_ms=options.drain_ms + DRAIN_SLACK_MS,
        )

    def start(self) -> None:
        """Starts the enclave, and returns when it is ready.

        Raises:
            CloisterError: As :meth:`launch` and :meth:`is_ready`; everything is ended then.
        """
        self.launch()
        try:
            while not self.is_ready(LOOK_SECONDS):
                pass
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        """Starts the enclave, and returns when its init runs.

        Raises:
            CloisterError: What a part says; everything is ended then.
        """
        try:
            self._ends.callback(self._host.stop)
            self._ends.callback(self._end_waits)
            self._host.start()
            self._enclave = enclave = self._runner.start(self._launch)
            self._ends.callback(enclave.kill)
            timeout_s = self._options.start_timeout.total_seconds()
            self._deadline = time.monotonic() + timeout_s
        except BaseException:
            self.close()
            raise

    def is_ready(self, wait_s: float = 0) -> bool:
        """Whether the enclave that was launched serves, waiting for up to ``wait_s`` seconds.

        Raises:
            RunnerError: It has ended, has failed, was not ready in time, or :meth:`cancel` came;
                with the last lines of its console.
        """
        health = self._host.health
        if health.ready:
            return True
        ended = self._started().wait(wait_s)
        if ended is not None:
            raise self.failure(f"the enclave ended before it was ready ({described(ended)})")
        if health.state == "failed":
            raise self.failure(f"the enclave cannot serve: {health.reason or 'no reason'}")
        if self._cancelled.is_set():
            raise RunnerError("the start of the enclave was given up")
        if time.monotonic() > self._deadline:
            reason = f", {health.reason}" if health.reason else ""
            timeout_s = self._options.start_timeout.total_seconds()
            raise self.failure(
                f"the enclave was not ready within {timeout_s:.0f} s: it is {health.state}{reason}"
            )
        return False

    def cancel(self) -> None:
        """Ends a :meth:`start` that waits, with an error."""
        self._cancelled.set()

    def accept(self) -> str:
        """Begins to accept clients on the relay of its own, and returns the address.

        Raises:
            CloisterError: The address cannot be listened on.
        """
        return self._host.accept()

    @property
    def health(self) -> Health:
        """The enclave's last answer."""
        return self._host.health

    def metrics(self) -> bytes | None:
        """What the enclave says on ``/metrics``; ``None``: nothing in time."""
        return metrics(self._health_address)

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        """Registers that it was started with, as the runner has them."""
        return self._started().pcrs

    @property
    def init_pid(self) -> int | None:
        """Process id of its init, where it has one on this machine."""
        return self._started().init_pid

    def ended(self, timeout_s: float) -> Exit | None:
        """How it ended by itself, or ``None`` when it still runs after ``timeout_s``."""
        return self._started().wait(timeout_s)

    def drain(self) -> Exit:
        """Stops accepting, lets the enclave finish within its own limit, and waits for its end."""
        enclave = self._started()
        grace = dt.timedelta(milliseconds=self._options.drain_ms)
        draining = threading.Thread(target=self._host.drain, args=(grace,), name="drain")
        draining.start()
        ended = enclave.wait((self._options.drain_ms + DRAIN_SLACK_MS) / 1000)
        # What it said last may be on its way yet. Who keeps a connection open after that, as pools
        # of idle connections do, is not waited for: nobody is left to answer.
        draining.join(LAST_BYTES_SECONDS)
        self._host.cut()
        draining.join()
        return enclave.stop() if ended is None else ended

    def kill(self) -> None:
        """Ends the enclave at once, or gives its start up; a :meth:`drain` returns soon."""
        self.cancel()
        if self._enclave is not None:
            self._enclave.kill()

    def failure(self, what: str) -> RunnerError:
        """An error that shows what the enclave said last."""
        lines = "".join(f"\n  {line}" for line in self._last_lines)
        said = f"; its console ended with:{lines}" if lines else "; its console is empty"
        return RunnerError(f"{what}{said}")

    def close(self) -> None:
        """Ends everything at once, after :meth:`drain` or without it; harmless when repeated."""
        self._ends.close()

    def _started(self) -> Enclave:
        if self._enclave is None:
            raise RunnerError("the enclave was not started")
        return self._enclave

    def _heard(self, line: str) -> None:
        shown = "".join(char if char.isprintable() else "�" for char in line[:MAX_CONSOLE_LINE])
        self._last_lines.append(shown)
        self._console(shown)


def described(ended: Exit) -> str:
    """How an enclave ended, in words."""
    if ended.signal is not None:
        return f"killed by signal {ended.signal}"
    return f"exit status {ended.code}"


def module_id() -> str:
    """A module id of the form that Nitro gives: instance id and enclave id."""
    return f"i-{secrets.token_hex(9)[:17]}-enc{secrets.token_hex(8)}"


CONSOLE_LINES = 20
MAX_CONSOLE_LINE = 500
LOOK_SECONDS = 0.05
DRAIN_SLACK_MS = 5_000  # from the end of a drain to the end of init: last logs, processes, mounts
# How long the last bytes of an enclave that has ended may take to reach their clients.
LAST_BYTES_SECONDS = 1.0
