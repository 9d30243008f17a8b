"""What a machine is like, as far as the work depends on it: values, no opinions."""

import dataclasses


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PortReading:
    """A port that something would listen on.

    Args:
        address: ``HOST:PORT``.
        purpose: What for.
        problem: Why it cannot be listened on; ``None``: it can.
        is_needed: For the work that was asked about.
    """

    address: str
    purpose: str
    problem: str | None = None
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
class Machine:
    """A machine, as it was read.

    Args:
        system: ``Linux``.
        release: Of the kernel: ``6.1.0-28-amd64``.
        architecture: ``x86_64``.
        is_root: This process runs as root.
        user_namespace_problem: What making one said; ``None``: it can be made.
        namespace_settings: Settings of the kernel that decide about it, by name, where they are.
        has_id_tools: ``newuidmap`` and ``newgidmap`` are there.
        has_id_ranges: This user has a range in ``/etc/subuid`` and ``/etc/subgid``.
        missing_programs: Static programs of this package that are not there.
        builders: The builders.
        memory_bytes: Memory that could be used, in bytes.
        descriptor_limits: Soft and hard limit of open descriptors.
        can_limit: An enclave's memory and CPUs can be limited (cgroups).
        ports: Ports that would be listened on.
        folders: Folders that would be written to.
        year: Of the clock, UTC.
        is_synchronized: The clock follows others; ``None``: nothing says so.
        devices: ``/dev`` files by name, whether they are there.
        hugepage_bytes: Memory in huge pages that is free.
        qemu: Path of QEMU; ``None``: it is not there.
    """

    system: str
    release: str
    architecture: str
    is_root: bool
    user_namespace_problem: str | None
    namespace_settings: dict[str, str]
    has_id_tools: bool
    has_id_ranges: bool
    missing_programs: list[str]
    builders: list[BuilderReading]
    memory_bytes: int
    descriptor_limits: tuple[int, int]
    can_limit: bool
    ports: list[PortReading]
    folders: list[FolderReading]
    year: int
    is_synchronized: bool | None
    devices: dict[str, bool]
    hugepage_bytes: int
    qemu: str | None
