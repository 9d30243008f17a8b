"""Reads what a machine is like.

Each reading has a deadline, changes nothing, and never fails: what cannot be read is said in it.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import errno
import importlib.resources
import os
import pathlib
import platform
import pwd
import re
import resource
import shutil
import socket
import subprocess

from cloister.build.builders import Builder, all_builders
from cloister.build.dockerfile import needs_container
from cloister.doctor.port_holder import holder_of
from cloister.doctor.readings import (
    AllocatorReading,
    BuilderReading,
    DockerfileReading,
    FolderReading,
    Machine,
    PortFault,
    PortReading,
)
from cloister.doctor.trial import try_enclave


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is to be done on a machine.

    Args:
        runner: ``sandbox``, ``qemu`` or ``nitro``.
        memory_bytes: Memory that an enclave needs.
        memory_reason: What needs it, for the message.
        granted_bytes: Memory that ``[resources]`` grants; ``None``: there is no enclave.
        cpus: Processors that it grants.
        connections: Connections at once.
        disk_bytes: Room that a build takes.
        listen: Where ``run`` would listen, ``HOST:PORT``.
        folder: Where ``build`` would write.
        home: Where production state is kept.
        dockerfile: The Dockerfile of the enclave; ``None``: there is no enclave.
        dockerfile_name: As enclave.toml names it.
        settings_problem: Why enclave.toml cannot be used; ``None``: it can, or there is none.
        image_problem: Why the image that was built before cannot be used.
        kernel: The kernel of ``[kernel]`` and whom it is for; ``None``: there is none.
        kernel_problem: Why it cannot be used, and what to do.
        kernel_warnings: What it lacks.
    """

    runner: str = "sandbox"
    memory_bytes: int = 256 << 20
    memory_reason: str = "a small enclave"
    granted_bytes: int | None = None
    cpus: int = 2
    connections: int = 10_000
    disk_bytes: int = 1 << 30
    listen: str = "127.0.0.1:8443"
    folder: pathlib.Path = pathlib.Path()
    home: pathlib.Path = pathlib.Path()
    dockerfile: pathlib.Path | None = None
    dockerfile_name: str = ""
    settings_problem: str | None = None
    image_problem: str | None = None
    kernel: str | None = None
    kernel_problem: tuple[str, str] | None = None
    kernel_warnings: tuple[str, ...] = ()


def read_machine(needs: Needs) -> Machine:
    """Looks at this machine; a few seconds at most."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        builders = [pool.submit(_builder, builder) for builder in all_builders()]
        namespaces = pool.submit(_user_namespace_problem)
        clock = pool.submit(_is_synchronized)
        trial = pool.submit(try_enclave)
        return Machine(
            system=platform.system(),
            release=platform.release(),
            architecture=platform.machine(),
            user=_user(),
            is_root=os.geteuid() == 0,
            has_only_root=_has_only_root(),
            user_namespace_problem=namespaces.result(),
            namespace_settings=_settings(),
            trial=trial.result(),
            has_id_tools=all(shutil.which(tool) for tool in ("newuidmap", "newgidmap")),
            has_id_ranges=all(_has_range(file) for file in ("/etc/subuid", "/etc/subgid")),
            missing_programs=_missing_programs(),
            builders=[builder.result() for builder in builders],
            dockerfile=_dockerfile(needs),
            memory_bytes=_memory(),
            descriptor_limits=resource.getrlimit(resource.RLIMIT_NOFILE),
            ports=[
                _port(needs.listen, "`cloister run`", is_needed=True),
                *(
                    _port(f"0.0.0.0:{port}", purpose, is_needed=False)
                    for port, purpose in _HOST_PORTS.items()
                ),
            ],
            folders=[_folder(needs.folder, "build"), _folder(needs.home, "state")],
            year=dt.datetime.now(dt.UTC).year,
            is_synchronized=clock.result(),
            # Only looked for: on some machines opening one means something.
            devices={name: pathlib.Path("/dev", name).exists() for name in _DEVICES},
            may_use_nitro=os.access("/dev/nitro_enclaves", os.R_OK | os.W_OK),
            allocator=_allocator(),
            hugepage_bytes=_hugepages(),
            qemu=shutil.which("qemu-system-x86_64"),
        )


def _builder(builder: Builder) -> BuilderReading:
    unusable = builder.unusable()
    if unusable is None:
        return BuilderReading(name=builder.name)
    return BuilderReading(name=builder.name, reason=unusable.reason, fix=unusable.fix)


def _dockerfile(needs: Needs) -> DockerfileReading | None:
    if needs.dockerfile is None:
        return None
    try:
        text = needs.dockerfile.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return DockerfileReading(path=needs.dockerfile_name, is_there=False)
    reason = needs_container(text, needs.dockerfile_name)
    return DockerfileReading(path=needs.dockerfile_name, container_reason=reason)


def _user_namespace_problem() -> str | None:
    """Makes one and leaves it: settings alone do not tell what a container's profile forbids."""
    tool = shutil.which("unshare")
    if tool is None:
        return "there is no `unshare` to try it with (Debian: util-linux)"
    command = [tool, "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "true"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    if done.returncode == 0:
        return None
    text = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
    return "".join(char for char in text[:200] if char.isprintable())


def _has_only_root() -> bool:
    """By user_namespaces(7): lines of a first id inside, one outside, and how many."""
    with contextlib.suppress(OSError, ValueError):
        lines = pathlib.Path("/proc/self/uid_map").read_text().splitlines()
        return sum(int(line.split()[2]) for line in lines) <= 1
    return False


def _settings() -> dict[str, str]:
    found = {}
    for name in _SETTINGS:
        with contextlib.suppress(OSError):
            found[name] = pathlib.Path("/proc/sys", name).read_text().strip()
    return found


def _user() -> str:
    """By the user database, for the environment may say another; without a name, the number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _has_range(file: str) -> bool:
    names = {_user(), str(os.getuid())}
    with contextlib.suppress(OSError):
        lines = pathlib.Path(file).read_text(errors="replace").splitlines()
        return any(line.partition(":")[0] in names for line in lines)
    return False


def _missing_programs() -> list[str]:
    folder = importlib.resources.files("cloister") / "_bin"
    return [name for name in _PROGRAMS if not (folder / name).is_file()]


def _memory() -> int:
    """``MemAvailable`` of proc(5), or less when a control group above leaves less."""
    available = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) << 10
    return min([available, *_left_by_groups()])


def _left_by_groups() -> list[int]:
    """What each control group above this process leaves of its memory, in either version."""
    left = []
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            kind = _MEMORY_GROUPS.get(controllers)
            own = pathlib.PurePosixPath(path)
            for group in (own, *own.parents) if kind else ():
                root, most, used = kind or ("", "", "")
                folder = pathlib.Path(root) / str(group).lstrip("/")
                # "max", or a group that is named from outside of this namespace.
                with contextlib.suppress(OSError, ValueError):
                    limit = int((folder / most).read_text())
                    left.append(max(0, limit - int((folder / used).read_text())))
    return left


def _port(address: str, purpose: str, *, is_needed: bool) -> PortReading:
    host, _, port = address.rpartition(":")
    problem = holder = None
    fault = PortFault.TAKEN
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as found:
        problem = getattr(found, "strerror", None) or str(found)
        number = getattr(found, "errno", None)
        if number == errno.EADDRINUSE:
            holder = holder_of(int(port))
        elif number in (errno.EACCES, errno.EPERM):
            fault = PortFault.FORBIDDEN
        else:
            fault = PortFault.ELSEWHERE
    return PortReading(
        address=address,
        purpose=purpose,
        problem=problem,
        fault=fault,
        holder=holder,
        is_needed=is_needed,
    )


def _folder(path: pathlib.Path, purpose: str) -> FolderReading:
    """The folder, or the one above it that is there."""
    try:
        there = path.absolute()
    except OSError:
        # It was removed while a shell was in it.
        return FolderReading(path=str(path), purpose=purpose, free_bytes=0, problem="it is gone")
    while not there.exists() and there != there.parent:
        there = there.parent
    problem = None if os.access(there, os.W_OK | os.X_OK) else "this user may not write to it"
    free = 0
    with contextlib.suppress(OSError):
        status = os.statvfs(there)
        free = status.f_bavail * status.f_frsize
    return FolderReading(path=str(path), purpose=purpose, free_bytes=free, problem=problem)


def _is_synchronized() -> bool | None:
    if pathlib.Path("/run/systemd/timesync/synchronized").exists():
        return True
    tool = shutil.which("timedatectl")
    if tool is None or not pathlib.Path("/run/systemd/system").exists():
        return None
    try:
        done = subprocess.run(
            [tool, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {b"yes": True, b"no": False}.get(done.stdout.strip())


def _allocator() -> AllocatorReading | None:
    """The numbers of its configuration, which is YAML of one level."""
    try:
        text = pathlib.Path(ALLOCATOR).read_text(errors="replace")
    except OSError:
        return None
    found = {
        key: int(number)
        for key, number in re.findall(r"^(\w+):[ \t]*([0-9]{1,9})\b", text, re.MULTILINE)
    }
    memory = found.get("memory_mib")
    return AllocatorReading(
        memory_bytes=None if memory is None else memory << 20, cpus=found.get("cpu_count")
    )


def _hugepages() -> int:
    total = 0
    for folder in pathlib.Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        with contextlib.suppress(OSError, ValueError):
            size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) << 10
            total += size * int((folder / "free_hugepages").read_text())
    return total


SECONDS = 2.0
ALLOCATOR = "/etc/nitro_enclaves/allocator.yaml"
_MEMORY_GROUPS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""By the controllers of a line of /proc/self/cgroup: where, the limit, and what is used of it."""
_PROGRAMS = ("cloister-enclave", "cloister-sandbox")
_DEVICES = ("nitro_enclaves", "vsock")
_SETTINGS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
_HOST_PORTS = {
    443: "the relay of `cloister host`",
    80: "certificates (ACME) of `cloister host`",
    3032: "health of `cloister host`",
}
