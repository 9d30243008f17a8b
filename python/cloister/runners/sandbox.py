"""The sandbox: an enclave in namespaces of its own, on any Linux.

The work is done by ``cloister-sandbox``, a static program that travels in this package; this
module starts it with a specification on descriptor 3, reads its status from descriptor 4 and stops
it. Python itself never forks or unshares: ``posix_spawn`` starts the program, which ties its life
to ours.
"""

import contextlib
import fcntl
import importlib.resources
import json
import logging
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from cloister.errors import (
    CloisterError,
    ConfigError,
    MalformedImage,
    MissingInput,
    PermissionRefused,
    RunnerError,
)
from cloister.runners.protocol import Endpoints, Exit, Launch

LAUNCHER = "cloister-sandbox"
START_SECONDS = 60  # unpacking a large image takes seconds; a launcher that says nothing is stuck
STOP_SLACK_SECONDS = 10  # beyond the grace period, after which the launcher itself is killed
MAX_SOCKET_PATH = 107  # bytes: unix(7), sun_path less its final zero
MAX_LINE = 65_536  # bytes of one line of status or console
LAUNCHER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # for newuidmap
INGRESS, HEALTH, AGENT, EGRESS = "enclave-7777", "enclave-7779", "host-7776", "host-4433"

_log = logging.getLogger("cloister.sandbox")


def binary(name: str) -> pathlib.Path:
    """The static program ``name`` of this package.

    Raises:
        RunnerError: It is not there, or cannot be made executable.
    """
    path = pathlib.Path(str(importlib.resources.files("cloister").joinpath("_bin", name)))
    if not path.is_file():
        raise RunnerError(
            f"the program `{name}` is not in this installation",
            hint="install a wheel for Linux x86-64, or run `make static` in a checkout",
        )
    if not os.access(path, os.X_OK):
        # Some installers drop the permission.
        try:
            path.chmod(0o755)
        except OSError as error:
            raise RunnerError(f"`{path}` is not executable", hint=f"chmod +x {path}") from error
    return path


class SandboxRunner:
    """Runs enclaves in the sandbox.

    Args:
        dev_ca_dir: Folder of the development root that signs the attestation documents; made when
            absent.
        console: Told each line of the enclave's console; by default it goes to the log.
        launcher: The launcher, for tests; by default the one of this package.
    """

    name = "sandbox"

    def __init__(
        self,
        *,
        dev_ca_dir: pathlib.Path,
        console: Callable[[str], None] | None = None,
        launcher: pathlib.Path | None = None,
    ) -> None:
        self._dev_ca_dir = dev_ca_dir
        self._console = console if console is not None else _log.info
        self._launcher = launcher

    def prepare(self, run_dir: pathlib.Path) -> Endpoints:
        """Makes the folder of a run, for this user alone, and says where the sockets go.

        Raises:
            ConfigError: Its path is relative, or too long for sockets.
            RunnerError: It exists and is not empty, or cannot be made.
        """
        sockets = run_dir / "v"
        longest = len(os.fsencode(sockets / f"{INGRESS}.sock"))
        if not run_dir.is_absolute() or longest > MAX_SOCKET_PATH:
            raise ConfigError(
                f"run_dir `{run_dir}` must be an absolute path of at most "
                f"{MAX_SOCKET_PATH - len(f'/v/{INGRESS}.sock')} bytes"
            )
        try:
            run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            sockets.mkdir(mode=0o700)
        except OSError as error:
            raise RunnerError(
                f"cannot make `{sockets}`: {error.strerror}",
                hint="another enclave may be using this folder; remove it when none is",
            ) from error
        return Endpoints(
            ingress=f"unix:{sockets / INGRESS}.sock",
            health=f"unix:{sockets / HEALTH}.sock",
            agent=f"unix:{sockets / AGENT}.sock",
            egress=f"unix:{sockets / EGRESS}.sock",
        )

    def start(self, launch: Launch) -> "SandboxEnclave":
        """Starts an enclave and returns when its init runs.

        Raises:
            MissingInput: There is no such image.
            MalformedImage: The image is refused; the message says why.
            PermissionRefused: The system forbids namespaces; the hint says what to set.
            RunnerError: Anything else.
        """
        if not launch.image.is_file():
            raise MissingInput(f"there is no image `{launch.image}`", hint="run `cloister build`")
        specification = {
            "eif": str(launch.image.absolute()),
            "run_dir": str(launch.run_dir),
            "dev_ca_dir": str(self._dev_ca_dir.absolute()),
            "memory_bytes": launch.memory_bytes,
            "cpus": launch.cpus,
            "module_id": launch.module_id,
            "debug": launch.debug,
            "grace_ms": launch.grace_ms,
        }
        self._dev_ca_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        launcher = self._launcher if self._launcher is not None else binary(LAUNCHER)
        enclave = SandboxEnclave(
            launcher, json.dumps(specification).encode(), launch, self._console
        )
        enclave.wait_started()
        return enclave


class SandboxEnclave:
    """An enclave in the sandbox, and the launcher that stands around it."""

    def __init__(
        self,
        launcher: pathlib.Path,
        specification: bytes,
        launch: Launch,
        console: Callable[[str], None],
    ) -> None:
        self._launch = launch
        self._pcrs: Mapping[int, bytes] = {}
        self._init_pid: int | None = None
        self._failure: CloisterError | None = None
        self._exit: Exit | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._last_line = ""
        self._lock = threading.Lock()
        self._pid, status, output = _spawn(launcher, specification)
        self._pidfd: int | None = os.pidfd_open(self._pid)
        self._threads = [
            threading.Thread(target=self._read_console, args=(output, console), daemon=True),
            threading.Thread(target=self._watch, args=(status,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id of the launcher."""
        return self._pid

    @property
    def init_pid(self) -> int | None:
        """Process id of the enclave's init, in our namespace."""
        return self._init_pid

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        """PCR0 to PCR2, and others that are not zero."""
        return self._pcrs

    def wait_started(self) -> None:
        """Waits until its init runs; see :meth:`SandboxRunner.start` for what it raises."""
        if not self._started.wait(START_SECONDS):
            self.kill()
            raise RunnerError(f"the launcher said nothing for {START_SECONDS} s")
        if self._failure is not None:
            self._ended.wait()
            raise self._failure

    def wait(self, timeout: float | None = None) -> Exit | None:
        """How it ended, or ``None`` when it still runs after ``timeout`` seconds."""
        return self._exit if self._ended.wait(timeout) else None

    def stop(self) -> Exit:
        """Asks it to drain, waits for as long as its grace period allows, and says how it ended."""
        self._signal(signal.SIGTERM)
        ended = self.wait(self._launch.grace_ms / 1000 + STOP_SLACK_SECONDS)
        return ended if ended is not None else self.kill()

    def kill(self) -> Exit:
        """Ends it at once: everything inside dies with its launcher."""
        self._signal(signal.SIGKILL)
        ended = self.wait()
        return ended if ended is not None else Exit(code=None, signal=signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            # A process descriptor, as a number may be another process's once it was waited for.
            if self._pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def _read_console(self, output: BinaryIO, console: Callable[[str], None]) -> None:
        with output:
            for line in _lines(output):
                self._last_line = line
                console(line)

    def _watch(self, status: BinaryIO) -> None:
        with status:
            for line in _lines(status):
                self._heard(json.loads(line))
        _, code = os.waitpid(self._pid, 0)
        with self._lock:
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
        if self._exit is None:
            killed = os.WTERMSIG(code) if os.WIFSIGNALED(code) else None
            self._exit = Exit(code=None if killed else os.WEXITSTATUS(code), signal=killed)
        if not self._started.is_set() and self._failure is None:
            self._failure = RunnerError(
                f"the launcher ended before the enclave started: {self._last_line or 'no reason'}"
            )
        # The launcher or its sweeper removed it; after a crash of both nobody did.
        shutil.rmtree(self._launch.run_dir, ignore_errors=True)
        self._ended.set()
        self._started.set()

    def _heard(self, event: dict[str, object]) -> None:
        match event:
            case {"event": "started", "pcrs": dict(pcrs), "init_pid": int(pid)}:
                self._pcrs = {int(index): bytes.fromhex(str(pcrs[index])) for index in pcrs}
                self._init_pid = pid
                self._started.set()
            case {"event": "exited", "code": code, "signal": number}:
                self._exit = Exit(
                    code=code if isinstance(code, int) else None,
                    signal=number if isinstance(number, int) else None,
                )
            case {"event": "failed", "message": str(message), "hint": hint}:
                self._failure = _failure(
                    str(event.get("kind")), message, hint if isinstance(hint, str) else None
                )
                self._started.set()
            case _:
                _log.warning("unknown status of the launcher: %s", sorted(event))


def _failure(kind: str, message: str, hint: str | None) -> CloisterError:
    classes: dict[str, type[CloisterError]] = {
        "image": MalformedImage,
        "permission": PermissionRefused,
    }
    return classes.get(kind, RunnerError)(message, hint=hint)


def _lines(stream: BinaryIO) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        yield line.decode(errors="replace").rstrip("\n")


def _spawn(launcher: pathlib.Path, specification: bytes) -> tuple[int, BinaryIO, BinaryIO]:
    """Starts the launcher; returns its process id, its status and its console."""
    with contextlib.ExitStack() as theirs:

        def pipe(*, reads: bool) -> tuple[int, int]:
            """Our end, and theirs at a number that is neither 3 nor 4."""
            reader, writer = os.pipe()
            ours, other = (writer, reader) if reads else (reader, writer)
            high = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, 10)
            os.close(other)
            theirs.callback(os.close, high)
            return ours, high

        spec_ours, spec_theirs = pipe(reads=True)
        status_ours, status_theirs = pipe(reads=False)
        console_ours, console_theirs = pipe(reads=False)
        try:
            pid = os.posix_spawn(
                launcher,
                [str(launcher)],
                {"PATH": LAUNCHER_PATH},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, console_theirs, 2),
                    (os.POSIX_SPAWN_DUP2, spec_theirs, 3),
                    (os.POSIX_SPAWN_DUP2, status_theirs, 4),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE],
            )
        except OSError as error:
            for ours in (spec_ours, status_ours, console_ours):
                os.close(ours)
            raise RunnerError(f"cannot start `{launcher}`: {error.strerror}") from error
    with contextlib.suppress(BrokenPipeError), os.fdopen(spec_ours, "wb") as spec:
        spec.write(specification)
    return pid, os.fdopen(status_ours, "rb"), os.fdopen(console_ours, "rb")
