"""One local run: platform, host and runner around one enclave, in this process.

It owns what it starts: the platform's part, the lock, and the boot of the enclave, which ends in
order. Whatever fails on the way, all of what was started before is ended. Printing is the command's
part, and signals are, too.
"""

import contextlib
import dataclasses
import fcntl
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Self
from uuid import UUID

from cloister.cli._run_plan import RunPlan
from cloister.cli._run_platform import NSM_ROOT_FILE, Backing, LocalBacking, RemoteBacking
from cloister.cli.settings import Settings
from cloister.errors import CloisterError, StoreError
from cloister.host import DevelopmentCa
from cloister.host.boot import Boot, BootOptions, described
from cloister.host.listening import check_listen
from cloister.host.objects import DirectoryObjects
from cloister.platform.clock import system
from cloister.runners import SandboxRunner


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
        self._boot: Boot | None = None
        self._console = console
        self._event = event
        self._ends = contextlib.ExitStack()

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
        check_listen(plan.listen)
        backing: Backing = (
            LocalBacking(plan) if self._env is None else RemoteBacking(plan, self._env)
        )
        self._backing = backing
        self._ends.callback(backing.close)
        self._ends.callback(_only_one(backing.state / f"run-{plan.enclave}.lock", plan.name))
        deployed = backing.deploy(plan)
        authority = DevelopmentCa(plan.dev_ca, now=system())
        log_dir = backing.state / "logs" / str(plan.enclave)
        boot = Boot(
            BootOptions(
                enclave=plan.enclave,
                image=plan.image,
                runtime=(plan.runtime, pathlib.Path(tempfile.gettempdir())),
                log_dir=log_dir,
                objects=DirectoryObjects(backing.state / "objects"),
                listen=plan.listen,
                cpus=plan.cpus,
                memory_bytes=plan.memory_bytes,
                debug=plan.debug,
                drain_ms=plan.drain_ms,
                start_timeout=plan.start_timeout,
                look_every=backing.look_every,
            ),
            runner=lambda console: SandboxRunner(dev_ca_dir=plan.dev_ca, console=console),
            platform=deployed.platform,
            certificates=authority,
            events=self._told,
            console=self._console,
            end_waits=backing.end_waits,
        )
        self._ends.callback(boot.close)
        boot.start()
        address = boot.accept()
        self._boot = boot
        return Running(
            address=address,
            ca_file=authority.certificate_path,
            nsm_root=plan.dev_ca / NSM_ROOT_FILE,
            api_key=deployed.api_key,
            api_key_file=deployed.api_key_file,
            app_public_key=deployed.app_public_key,
            registers=plan.registers,
            init_pid=boot.init_pid,
            log_dir=log_dir,
        )

    def ended(self, timeout_s: float) -> CloisterError | None:
        """Why the enclave ended by itself, or ``None`` when it still runs after ``timeout_s``."""
        ended = None if self._boot is None else self._boot.ended(timeout_s)
        if self._boot is None or ended is None:
            return None
        return self._boot.failure(f"the enclave ended ({described(ended)})")

    def drain(self) -> None:
        """Stops accepting, lets the enclave finish within its own limit, and waits for its end."""
        if self._boot is not None:
            self._boot.drain()

    def _told(self, enclave: UUID, kind: str, message: str) -> None:
        """An event of the enclave; a platform that is away is not worth a run."""
        self._event(kind, message)
        if self._backing is not None:
            with contextlib.suppress(CloisterError):
                self._backing.report(enclave, kind, message)


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
