"""Reads what a machine is like.

Each reading has a deadline, changes nothing, and never fails: what cannot be read is said in it.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import getpass
import importlib.resources
import os
import pathlib
import platform
import resource
import shutil
import socket
import subprocess

from cloister.build.builders import all_builders
from cloister.doctor.readings import BuilderReading, FolderReading, Machine, PortReading


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is to be done on a machine.

    Args:
        runner: ``sandbox``, ``qemu`` or ``nitro``.
        memory_bytes: Memory that an enclave needs.
        memory_reason: What needs it, for the message.
        connections: Connections at once.
        disk_bytes: Room that a build takes.
        listen: Where ``run`` would listen, ``HOST:PORT``.
        folder: Where ``build`` would write.
        home: Where production state is kept.
    """

    runner: str = "sandbox"
    memory_bytes: int = 256 << 20
    memory_reason: str = "a small enclave"
    connections: int = 10_000
    disk_bytes: int = 1 << 30
    listen: str = "127.0.0.1:8443"
    folder: pathlib.Path = pathlib.Path()
    home: pathlib.Path = pathlib.Path()


def read_machine(needs: Needs) -> Machine:
    """Looks at this machine; a few seconds at most."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        builders = [pool.submit(_builder, builder) for builder in all_builders()]
        namespaces = pool.submit(_user_namespace_problem)
        clock = pool.submit(_is_synchronized)
        return Machine(
            system=platform.system(),
            release=platform.release(),
            architecture=platform.machine(),
            is_root=os.geteuid() == 0,
            user_namespace_problem=namespaces.result(),
            namespace_settings=_settings(),
            has_id_tools=all(shutil.which(tool) for tool in ("newuidmap", "newgidmap")),
            has_id_ranges=all(_has_range(file) for file in ("/etc/subuid", "/etc/subgid")),
            missing_programs=_missing_programs(),
            builders=[builder.result() for builder in builders],
            memory_bytes=_memory(),
            descriptor_limits=resource.getrlimit(resource.RLIMIT_NOFILE),
            can_limit=_can_limit(),
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
            hugepage_bytes=_hugepages(),
            qemu=shutil.which("qemu-system-x86_64"),
        )


def _builder(builder: object) -> BuilderReading:
    name = str(getattr(builder, "name", ""))
    unusable = getattr(builder, "unusable")()  # noqa: B009 - of the protocol
    if unusable is None:
        return BuilderReading(name=name)
    return BuilderReading(name=name, reason=unusable.reason, fix=unusable.fix)


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


def _settings() -> dict[str, str]:
    found = {}
    for name in _SETTINGS:
        with contextlib.suppress(OSError):
            found[name] = pathlib.Path("/proc/sys", name).read_text().strip()
    return found


def _has_range(file: str) -> bool:
    try:
        names = {getpass.getuser(), str(os.getuid())}
        lines = pathlib.Path(file).read_text(errors="replace").splitlines()
    except (OSError, KeyError):
        return False
    return any(line.partition(":")[0] in names for line in lines)


def _missing_programs() -> list[str]:
    folder = importlib.resources.files("cloister") / "_bin"
    return [name for name in _PROGRAMS if not (folder / name).is_file()]


def _memory() -> int:
    """``MemAvailable`` of proc(5), and what a cgroup leaves of it."""
    available = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) << 10
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(pathlib.Path("/sys/fs/cgroup", name).read_text())
            available = min(available, limit)
    return available


def _can_limit() -> bool:
    return any(
        os.access(pathlib.Path("/sys/fs/cgroup", name), os.W_OK) for name in ("", "memory", "cpu")
    )


def _port(address: str, purpose: str, *, is_needed: bool) -> PortReading:
    host, _, port = address.rpartition(":")
    problem = None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as found:
        problem = getattr(found, "strerror", None) or str(found)
    return PortReading(address=address, purpose=purpose, problem=problem, is_needed=is_needed)


def _folder(path: pathlib.Path, purpose: str) -> FolderReading:
    """The folder, or the one above it that is there."""
    there = path.absolute()
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


def _hugepages() -> int:
    total = 0
    for folder in pathlib.Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        with contextlib.suppress(OSError, ValueError):
            size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) << 10
            total += size * int((folder / "free_hugepages").read_text())
    return total


SECONDS = 2.0
_PROGRAMS = ("cloister-enclave", "cloister-sandbox")
_DEVICES = ("nitro_enclaves", "vsock", "kvm")
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
