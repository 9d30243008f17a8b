"""What a machine is like, as far as the work depends on it: values, no opinions."""

import dataclasses
import enum


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuilderReading:
    """A builder.

    Args:
        name: As ``--builder`` names it.
        reason: Why it cannot be used; ``None``: it can.
        fix: What to do about that.
    """

    name: str
    reason: str | None = None
    fix: str | None = None


class PortFault(enum.Enum):
    """Why nothing can listen somewhere."""

    TAKEN = enum.auto()
    FORBIDDEN = enum.auto()
    """A port below ``net.ipv4.ip_unprivileged_port_start`` (ip(7)), for this user."""
    ELSEWHERE = enum.auto()
    """The address is none of this machine."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PortReading:
    """A port that something would listen on.

    Args:
        address: ``HOST:PORT``.
        purpose: What for.
        problem: Why it cannot be listened on; ``None``: it can.
        fault: What kind of problem that is.
        holder: Who listens there, as far as this user may know.
        is_needed: For the work that was asked about.
    """

    address: str
    purpose: str
    problem: str | None = None
    fault: PortFault = PortFault.TAKEN
    holder: str | None = None
    is_needed: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderReading:
    """A folder that something is written to.

    Args:
        path: The folder.
        purpose: What for.
        free_bytes: Room in it for this user.
        problem: Why it cannot be written to; ``None``: it can.
    """

    path: str
    purpose: str
    free_bytes: int
    problem: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialReading:
    """An enclave without an application, started for a moment.

    Args:
        problem: Why it did not start; ``None``: it did.
        fix: What to do about that.
        unset: Limits that could not be set, and why.
    """

    problem: str | None = None
    fix: str | None = None
    unset: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DockerfileReading:
    """A Dockerfile.

    Args:
        path: As enclave.toml names it.
        is_there: There is such a file.
        container_reason: The first line of it that needs a builder with containers.
    """

    path: str
    is_there: bool = True
    container_reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorReading:
    """What is set aside for Nitro enclaves.

    Args:
        memory_bytes: ``memory_mib``, in bytes; ``None``: not said.
        cpus: ``cpu_count``; ``None``: not said.
    """

    memory_bytes: int | None
    cpus: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine, as it was read.

    Args:
        system: ``Linux``.
        release: Of the kernel: ``6.1.0-28-amd64``.
        architecture: ``x86_64``.
        user: Name of the user that this process runs as.
        is_root: This process runs as root.
        has_only_root: No other user exists in its user namespace, as in some containers.
        user_namespace_problem: What making one said; ``None``: it can be made.
        namespace_settings: Settings of the kernel that decide about it, by name, where they are.
        trial: An enclave that was tried.
        has_id_tools: ``newuidmap`` and ``newgidmap`` are there.
        has_id_ranges: This user has a range in ``/etc/subuid`` and ``/etc/subgid``.
        missing_programs: Static programs of this package that are not there.
        builders: The builders.
        dockerfile: The Dockerfile of the enclave; ``None``: there is no enclave.
        memory_bytes: Memory that could be used, in bytes.
        descriptor_limits: Soft and hard limit of open descriptors.
        ports: Ports that would be listened on.
        folders: Folders that would be written to.
        year: Of the clock, UTC.
        is_synchronized: The clock follows others; ``None``: nothing says so.
        devices: ``/dev`` files by name, whether they are there.
        may_use_nitro: This user may use the driver of Nitro enclaves.
        allocator: Its configuration; ``None``: there is none.
        hugepage_bytes: Memory in huge pages that is free.
        qemu: Path of QEMU; ``None``: it is not there.
    """

    system: str
    release: str
    architecture: str
    user: str
    is_root: bool
    has_only_root: bool
    user_namespace_problem: str | None
    namespace_settings: dict[str, str]
    trial: TrialReading
    has_id_tools: bool
    has_id_ranges: bool
    missing_programs: list[str]
    builders: list[BuilderReading]
    dockerfile: DockerfileReading | None
    memory_bytes: int
    descriptor_limits: tuple[int, int]
    ports: list[PortReading]
    folders: list[FolderReading]
    year: int
    is_synchronized: bool | None
    devices: dict[str, bool]
    may_use_nitro: bool
    allocator: AllocatorReading | None
    hugepage_bytes: int
    qemu: str | None
