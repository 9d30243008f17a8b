"""One local run: platform, host and runner around one enclave, in this process.

It owns what it starts and ends it in order: clients first, then the enclave, which finishes and
sends its last logs, then the host, the store, the run directory. Whatever fails on the way, all of
what was started before is ended. Printing is the command's part, and signals are, too.
"""

import collections
import contextlib
import dataclasses
import datetime as dt
import fcntl
import pathlib
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self
from uuid import UUID

from cloister.cli import _run_dir
from cloister.cli._run_plan import RunPlan
from cloister.cli._run_platform import NSM_ROOT_FILE, Backing, LocalBacking, RemoteBacking
from cloister.cli.params import without_controls
from cloister.cli.settings import Settings
from cloister.errors import CloisterError, RunnerError, StoreError
from cloister.host import DevelopmentCa, Host, HostOptions
from cloister.host.listening import listen_error
from cloister.platform.clock import system
from cloister.runners import Exit, Launch, SandboxRunner
from cloister.runners.sandbox import SandboxEnclave


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a client needs to reach the enclave and to believe it."""

    address: str
    ca_file: pathlib.Path
    nsm_root: pathlib.Path
    api_key: str | None = dataclasses.field(repr=False)
    api_key_file: pathlib.Path | None
    app_public_key: bytes
    registers: Mapping[int, bytes]
    init_pid: int | None
    log_dir: pathlib.Path


class RunSession:
    """Starts, watches and ends one run.

    Use it in a ``with`` statement; leaving it ends everything at once, after :meth:`drain` or
    without it. It must be made and used on the main thread: the launcher's life is tied to the
    thread that started it.

    Args:
        plan: What is to be run.
        console: Told each line of the enclave's console.
        event: Told of each event that the enclave reports: kind and message.
        env: Says where a platform's server is; the local store in this process when absent.
    """

    def __init__(
        self,
        plan: RunPlan,
        *,
        console: Callable[[str], None],
        event: Callable[[str, str], None],
        env: Settings | None = None,
    ) -> None:
        self._plan = plan
        self._env = env
        self._backing: Backing | None = None
        self._console_sink = console
        self._last_lines: collections.deque[str] = collections.deque(maxlen=CONSOLE_LINES)
        self._event = event
        self._ends = contextlib.ExitStack()
        self._host: Host | None = None
        self._enclave: SandboxEnclave | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start(self) -> Running:
        """Starts everything and returns when clients are accepted.

        Raises:
            CloisterError: Whatever a part says; :class:`RunnerError`, with the last lines of the
                console, when the enclave ended or was not ready in time.
        """
        plan = self._plan
        _check_listen(plan.listen)
        backing: Backing = (
            LocalBacking(plan) if self._env is None else RemoteBacking(plan, self._env)
        )
        self._backing = backing
        self._ends.callback(backing.close)
        self._ends.callback(_only_one(backing.state / f"run-{plan.enclave}.lock", plan.name))
        deployed = backing.deploy(plan)
        authority = DevelopmentCa(plan.dev_ca, now=system())

        run_dir = _run_dir.make(plan.runtime, pathlib.Path(tempfile.gettempdir()))
        self._ends.callback(_run_dir.remove, run_dir)
        runner = SandboxRunner(dev_ca_dir=plan.dev_ca, console=self._console)
        endpoints = runner.prepare(run_dir)
        log_dir = backing.state / "logs" / str(plan.enclave)
        host = Host(
            HostOptions(
                enclave=plan.enclave,
                ingress=endpoints.ingress,
                health=endpoints.health,
                agent=endpoints.agent,
                listen=plan.listen,
                run_dir=run_dir,
                log_dir=log_dir,
                objects_dir=backing.state / "objects",
                look_every=backing.look_every,
            ),
            platform=deployed.platform,
            certificates=authority,
            events=self._told,
        )
        self._host = host
        self._ends.callback(host.stop)
        self._ends.callback(backing.end_waits)
        host.start()
        launch = Launch(
            image=plan.image,
            run_dir=run_dir,
            module_id=_module_id(),
            memory_bytes=plan.memory_bytes,
            cpus=plan.cpus,
            debug=plan.debug,
            grace_ms=plan.drain_ms + DRAIN_SLACK_MS,
        )
        self._enclave = runner.start(launch)
        self._ends.callback(self._enclave.kill)
        self._wait_ready(host, self._enclave)
        address = host.accept()
        return Running(
            address=address,
            ca_file=authority.certificate_path,
            nsm_root=plan.dev_ca / NSM_ROOT_FILE,
            api_key=deployed.api_key,
            api_key_file=deployed.api_key_file,
            app_public_key=deployed.app_public_key,
            registers=plan.registers,
            init_pid=self._enclave.init_pid,
            log_dir=log_dir,
        )

    def ended(self, timeout_s: float) -> Exit | None:
        """How the enclave ended by itself, or ``None`` when it still runs after ``timeout_s``."""
        return None if self._enclave is None else self._enclave.wait(timeout_s)

    def drain(self) -> Exit | None:
        """Stops accepting, lets the enclave finish within its own limit, and waits for its end."""
        if self._host is None or self._enclave is None:
            return None
        grace = dt.timedelta(milliseconds=self._plan.drain_ms)
        draining = threading.Thread(target=self._host.drain, args=(grace,), name="drain")
        draining.start()
        ended = self._enclave.wait((self._plan.drain_ms + DRAIN_SLACK_MS) / 1000)
        # What it said last may be on its way yet. Who keeps a connection open after that, as pools
        # of idle connections do, is not waited for: nobody is left to answer.
        draining.join(LAST_BYTES_SECONDS)
        self._host.cut()
        draining.join()
        return self._enclave.stop() if ended is None else ended

    def failure(self, what: str) -> RunnerError:
        """An error that shows what the enclave said last."""
        lines = "".join(f"\n  {line}" for line in self._last_lines)
        said = f"; its console ended with:{lines}" if lines else "; its console is empty"
        return RunnerError(f"{what}{said}")

    def _wait_ready(self, host: Host, enclave: SandboxEnclave) -> None:
        deadline = time.monotonic() + self._plan.start_timeout.total_seconds()
        while True:
            health = host.health
            if health.ready:
                return
            ended = enclave.wait(LOOK_SECONDS)
            if ended is not None:
                raise self.failure(f"the enclave ended before it was ready ({_described(ended)})")
            if health.state == "failed":
                raise self.failure(f"the enclave cannot serve: {health.reason or 'no reason'}")
            if time.monotonic() > deadline:
                reason = f", {health.reason}" if health.reason else ""
                waited = f"{self._plan.start_timeout.total_seconds():.0f} s"
                raise self.failure(
                    f"the enclave was not ready within {waited}: it is {health.state}{reason}"
                )

    def _told(self, enclave: UUID, kind: str, message: str) -> None:
        """An event of the enclave; a platform that is away is not worth a run."""
        self._event(kind, message)
        if self._backing is not None:
            with contextlib.suppress(CloisterError):
                self._backing.report(enclave, kind, message)

    def _console(self, line: str) -> None:
        shown = without_controls(line[:MAX_CONSOLE_LINE])
        self._last_lines.append(shown)
        self._console_sink(shown)


def _check_listen(address: str) -> None:
    """Finds a port that is in use before an enclave was started for it."""
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as problem:
        raise listen_error(address, problem) from problem


def _only_one(path: pathlib.Path, name: str) -> Callable[[], None]:
    """Takes the lock of a running enclave; what is returned gives it back."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(
            f"the enclave `{name}` of this folder runs already",
            hint="stop the other `cloister run` first",
        ) from None
    return file.close


def ended_early(session: RunSession, ended: Exit) -> CloisterError:
    """The error of an enclave that ended while it should have run."""
    return session.failure(f"the enclave ended ({_described(ended)})")


def _described(ended: Exit) -> str:
    if ended.signal is not None:
        return f"killed by signal {ended.signal}"
    return f"exit status {ended.code}"


def _module_id() -> str:
    """A module id of the form that Nitro gives: instance id and enclave id."""
    return f"i-{secrets.token_hex(9)[:17]}-enc{secrets.token_hex(8)}"


CONSOLE_LINES = 20
MAX_CONSOLE_LINE = 500
LOOK_SECONDS = 0.05
DRAIN_SLACK_MS = 5_000  # from the end of a drain to the end of init: last logs, processes, mounts
# How long the last bytes of an enclave that has ended may take to reach their clients.
LAST_BYTES_SECONDS = 1.0
