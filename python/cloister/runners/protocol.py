"""What every way to run an enclave offers.

A runner starts an image and says where its ports are; it carries no bytes (the relay does) and
knows nothing of what runs inside. It refuses an image that was not built for it and says so.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Protocol

from cloister.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be started.

    Args:
        image: The EIF.
        run_dir: Folder of this run, absolute; the runner makes it and removes it at the end.
        module_id: ``module_id`` of the attestation documents, where the runner decides it.
        memory_bytes: Memory of the enclave; ``None`` for no bound but the machine's.
        cpus: Processors of the enclave; ``None`` for no bound but the machine's.
        debug: Start it as a debug enclave: PCR0, PCR1 and PCR2 are zero.
        grace_ms: From the request to stop until the enclave is killed, milliseconds.

    Raises:
        ConfigError: ``run_dir`` is relative, or a number is not positive.
    """

    image: pathlib.Path
    run_dir: pathlib.Path
    module_id: str
    memory_bytes: int | None = None
    cpus: int | None = None
    debug: bool = False
    grace_ms: int = 40_000

    def __post_init__(self) -> None:
        if not self.run_dir.is_absolute():
            raise ConfigError(f"run_dir must be an absolute path, got `{self.run_dir}`")
        for name in ("memory_bytes", "cpus", "grace_ms"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be positive, got {value}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the ports of one enclave are, as addresses of ``cloister_transport``.

    Args:
        ingress: Clients; the enclave listens.
        health: Health and drain; the enclave listens.
        agent: The agent API; the host listens, before the start.
        egress: Egress streams; the host listens, before the start.
    """

    ingress: str
    health: str
    agent: str
    egress: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How an enclave ended.

    Args:
        code: Exit code of its init, when it exited.
        signal: Signal, when it was killed.
    """

    code: int | None
    signal: int | None

    @property
    def is_clean(self) -> bool:
        """Whether it ended by itself and in order."""
        return self.code == 0


class Enclave(Protocol):
    """An enclave that was started."""

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        """PCR0 to PCR2, and others that are not zero."""

    @property
    def init_pid(self) -> int | None:
        """Process id of its init, where it has one on this machine."""

    def wait(self, timeout: float | None = None) -> Exit | None:
        """How it ended, or ``None`` when it still runs after ``timeout`` seconds."""

    def stop(self) -> Exit:
        """Asks it to drain, waits for as long as its grace period allows, and says how it ended."""

    def kill(self) -> Exit:
        """Ends it at once."""


class Runner(Protocol):
    """A way to run enclaves."""

    name: str

    def prepare(self, run_dir: pathlib.Path) -> Endpoints:
        """Makes the folder of a run; the host's sockets must listen before :meth:`start`."""

    def start(self, launch: Launch) -> Enclave:
        """Starts an enclave and returns when its init runs."""
