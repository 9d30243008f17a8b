"""Judges a machine, thing by thing. Pure: readings in, findings out."""

import re
from collections.abc import Callable, Iterator

from cloister.config.setting import as_size
from cloister.doctor.finding import Finding, State, fail, gib, info, ok, warn
from cloister.doctor.machine import Needs
from cloister.doctor.nitro import examine_nitro
from cloister.doctor.readings import Machine, PortFault, PortReading


def examine(machine: Machine, needs: Needs) -> list[Finding]:
    """Every finding, in a fixed order.

    Args:
        machine: As it was read.
        needs: What is to be done on it.
    """
    return [finding for check in _CHECKS for finding in check(machine, needs)]


def _kernel(machine: Machine, _: Needs) -> Iterator[Finding]:
    if machine.system != "Linux":
        yield fail("kernel", f"{machine.system}, expected Linux", "run it on Linux, or in a VM")
        return
    found = re.match(r"(\d+)\.(\d+)", machine.release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        yield fail("kernel", f"Linux {machine.release}", f"update to {oldest} or later")
    else:
        yield ok("kernel", f"Linux {machine.release}")
    if machine.architecture == "x86_64":
        yield ok("architecture", machine.architecture)
    else:
        yield fail(
            "architecture",
            f"{machine.architecture}; this package has programs for x86_64 alone",
            "build and run on x86_64",
        )


def _programs(machine: Machine, _: Needs) -> Iterator[Finding]:
    if machine.missing_programs:
        yield fail(
            "programs",
            f"not in this installation: {', '.join(machine.missing_programs)}",
            "install the wheel for Linux x86-64; in a checkout, `make static`",
        )
    else:
        yield ok("programs", "the enclave's program and the sandbox's launcher are there")


def _namespaces(machine: Machine, needs: Needs) -> Iterator[Finding]:
    state = fail if needs.runner == "sandbox" else warn
    trial = machine.trial
    # An enclave that was started had one, whatever `unshare` was told.
    if trial.problem is None or machine.user_namespace_problem is None:
        yield ok("user-namespaces", "can be made")
    else:
        yield state(
            "user-namespaces",
            f"cannot be made: {machine.user_namespace_problem}",
            _namespace_fix(machine.namespace_settings),
        )
    if trial.problem is None:
        yield ok("sandbox", "an empty enclave was started and ended")
    else:
        yield state(
            "sandbox",
            f"an empty enclave does not start: {trial.problem}",
            trial.fix or "`cloister run --console` says more",
        )


def _user_ids(machine: Machine, _: Needs) -> Iterator[Finding]:
    if machine.is_root and machine.has_only_root:
        yield warn(
            "user-ids",
            "only root exists in this user namespace: images of root alone can be run",
            "run it where root has more ids, or as an ordinary user with a range of them",
        )
    elif machine.is_root:
        yield ok("user-ids", "root: every owner of an image can be mapped")
    elif machine.has_id_tools and machine.has_id_ranges:
        yield ok("user-ids", "newuidmap and a range of ids are there")
    else:
        lacks = []
        if not machine.has_id_tools:
            lacks.append("newuidmap and newgidmap")
        if not machine.has_id_ranges:
            lacks.append("a range of this user in /etc/subuid and /etc/subgid")
        fixes = [] if machine.has_id_tools else ["apt-get install uidmap"]
        if not machine.has_id_ranges:
            fixes.append(
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {machine.user}"
            )
        yield warn(
            "user-ids",
            f"without {' and '.join(lacks)}, images of root alone can be run in the sandbox, and"
            " built by buildah or podman",
            f"as root: {'; '.join(fixes)}",
        )


def _cgroups(machine: Machine, _: Needs) -> Iterator[Finding]:
    trial = machine.trial
    if trial.problem is not None:
        yield info("cgroups", "unknown, as no enclave was started")
    elif trial.unset:
        yield warn(
            "cgroups",
            f"a sandbox is not limited as a whole: {'; '.join(trial.unset)}",
            "run as root, or limit it from outside: systemd-run --user --scope -p MemoryMax=2G"
            " -p CPUQuota=200% cloister run",
        )
    else:
        yield ok("cgroups", "memory and CPUs of an enclave can be limited")


def _namespace_fix(settings: dict[str, str]) -> str:
    if settings.get("user/max_user_namespaces") == "0":
        return "as root: sysctl user.max_user_namespaces=15000"
    if settings.get("kernel/unprivileged_userns_clone") == "0":
        return "as root: sysctl kernel.unprivileged_userns_clone=1"
    if settings.get("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    return "in a container, allow them in its seccomp profile; else run as root"


def _builders(machine: Machine, _: Needs) -> Iterator[Finding]:
    usable = [builder.name for builder in machine.builders if builder.reason is None]
    for builder in machine.builders:
        name = f"builder-{builder.name}"
        if builder.reason is None:
            yield ok(name, "usable")
        elif len(usable) > 1:
            # One that runs containers is enough.
            yield info(name, builder.reason, builder.fix)
        else:
            yield warn(name, builder.reason, builder.fix or "see its documentation")
    if usable == ["native"]:
        yield warn(
            "builders",
            "no builder runs containers: a Dockerfile with RUN or a base image cannot be built",
            "apt-get install buildah, which needs no daemon; or give a saved image with --image",
        )


def _project(_: Machine, needs: Needs) -> Iterator[Finding]:
    if needs.settings_problem is not None:
        yield fail(
            "settings",
            f"enclave.toml cannot be used: {needs.settings_problem}",
            "mend it; enclave.toml.example has every setting. Here its defaults are taken",
        )
    if needs.image_problem is not None:
        yield warn(
            "image",
            f"the image that is there cannot be used: {needs.image_problem}",
            "cloister build makes it again",
        )
    if needs.kernel_problem is not None:
        yield fail("kernel-image", *needs.kernel_problem)
    elif needs.kernel is not None:
        yield ok("kernel-image", needs.kernel)
    for number, warning in enumerate(needs.kernel_warnings, start=1):
        yield warn(f"kernel-image-{number}", warning, "`cloister kernel list` shows the others")


def _dockerfile(machine: Machine, _: Needs) -> Iterator[Finding]:
    found = machine.dockerfile
    if found is None:
        return
    usable = [one.name for one in machine.builders if one.reason is None and one.name != "native"]
    if not found.is_there:
        yield warn(
            "dockerfile",
            f"there is no `{found.path}`",
            "write one, or build from an image: cloister build --image NAME",
        )
    elif found.container_reason is None:
        yield ok("dockerfile", f"`{found.path}` needs no container: native builds it")
    elif usable:
        yield ok("dockerfile", f"{found.container_reason}: {usable[0]} builds it")
    else:
        yield fail(
            "dockerfile",
            f"{found.container_reason} needs a builder that runs containers, and none is usable",
            "apt-get install buildah, which needs no daemon",
        )


def _memory(machine: Machine, needs: Needs) -> Iterator[Finding]:
    found = f"{gib(machine.memory_bytes)} available"
    if needs.granted_bytes is not None and needs.memory_bytes > needs.granted_bytes:
        yield fail(
            "memory-granted",
            f"{needs.memory_reason} needs {as_size(needs.memory_bytes)}, `[resources] memory` is"
            f" {as_size(needs.granted_bytes)}",
            f'set memory = "{as_size(needs.memory_bytes)}" in [resources] of enclave.toml',
        )
    if needs.memory_bytes > machine.memory_bytes:
        yield fail(
            "memory",
            f"{found}, {needs.memory_reason} needs {as_size(needs.memory_bytes)}",
            "end other programs, add memory, or make the image smaller",
        )
    else:
        yield ok("memory", f"{found}; {needs.memory_reason} needs {as_size(needs.memory_bytes)}")


def _descriptors(machine: Machine, needs: Needs) -> Iterator[Finding]:
    soft, hard = machine.descriptor_limits
    wanted = DESCRIPTORS_PER_CONNECTION * needs.connections + SPARE_DESCRIPTORS
    # A limit that is none is a negative number (getrlimit(2)).
    if soft < 0 or soft >= wanted:
        allowed = "any number of" if soft < 0 else str(soft)
        yield ok("descriptors", f"{allowed} open descriptors")
        return
    if hard < 0 or hard >= wanted:
        fix = f"ulimit -n {wanted}, in the shell that runs it (LimitNOFILE={wanted} in a unit)"
    else:
        fix = f"`{machine.user} - nofile {wanted}` in /etc/security/limits.conf, and log in again"
    fits = max(1, (soft - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION)
    yield warn(
        "descriptors",
        f"{soft} open descriptors; {needs.connections} connections take {wanted}",
        f"{fix}; or max_concurrent_connections = {fits} in [acceptor] of enclave.toml",
    )


def _ports(machine: Machine, _: Needs) -> Iterator[Finding]:
    for port in machine.ports:
        name = f"port-{port.address.rpartition(':')[2]}"
        if port.problem is None:
            yield ok(name, f"{port.address} is free, for {port.purpose}")
        else:
            state = fail if port.is_needed else info
            holder = f" ({port.holder})" if port.holder else ""
            yield state(
                name,
                f"{port.address}, for {port.purpose}: {port.problem}{holder}",
                _port_fix(port),
            )


def _port_fix(port: PortReading) -> str:
    number = port.address.rpartition(":")[2]
    another = ", or name another with --listen" if port.is_needed else ""
    if port.fault is PortFault.FORBIDDEN:
        return f"as root: sysctl net.ipv4.ip_unprivileged_port_start={number}{another}"
    if port.fault is PortFault.ELSEWHERE:
        return "name an address of this machine (ip address)"
    return f"end what listens there (ss -ltnp){another}"


def _folders(machine: Machine, needs: Needs) -> Iterator[Finding]:
    for folder in machine.folders:
        name = f"disk-{folder.purpose}"
        room = f"{folder.path}: {gib(folder.free_bytes)} free"
        if folder.problem is not None:
            yield fail(name, f"{folder.path}: {folder.problem}", "make it writable for this user")
        elif folder.purpose == "build" and folder.free_bytes < needs.disk_bytes:
            yield warn(
                name,
                f"{room}, a build takes about {gib(needs.disk_bytes)}",
                "remove what is not needed; .cloister/build is a cache and may go",
            )
        elif folder.free_bytes < STATE_BYTES:
            yield warn(
                name, f"{room}, too little for keys and records", "remove what is not needed"
            )
        else:
            yield ok(name, room)


def _clock(machine: Machine, _: Needs) -> Iterator[Finding]:
    if machine.year < EARLIEST_YEAR:
        yield fail(
            "clock",
            f"it says {machine.year}: certificates and attestation documents are not valid then",
            "set it: timedatectl set-ntp true",
        )
    elif machine.is_synchronized is False:
        yield warn(
            "clock",
            "it follows no other clock: documents of a clock that is off are refused",
            "timedatectl set-ntp true, or start chrony",
        )
    elif machine.is_synchronized is None:
        yield info(
            "clock",
            f"{machine.year}; nothing here says whether it is synchronized",
            "look at what keeps it: chronyc tracking, or the settings of the machine's host",
        )
    else:
        yield ok("clock", "synchronized")


def can_work(findings: list[Finding]) -> bool:
    """Whether nothing keeps the main job from being done."""
    return all(finding.state is not State.FAIL for finding in findings)


_CHECKS: tuple[Callable[[Machine, Needs], Iterator[Finding]], ...] = (
    _kernel,
    _programs,
    _namespaces,
    _user_ids,
    _cgroups,
    _builders,
    _project,
    _dockerfile,
    _memory,
    _descriptors,
    _ports,
    _folders,
    _clock,
    examine_nitro,
)
OLDEST_KERNEL = (5, 10)
"""close_range, pidfd and the clone flags that the launcher uses are older; nothing older is
tested."""
EARLIEST_YEAR = 2025
DESCRIPTORS_PER_CONNECTION = 2
"""One to the client, one to the enclave."""
SPARE_DESCRIPTORS = 256
STATE_BYTES = 16 << 20
