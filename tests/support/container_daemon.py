"""A private dockerd for tests, and stores of their own for buildah and podman.

The daemon runs in namespaces of its own (network, mounts, processes): its bridge, its mounts and
its containers are gone with it, whatever a test did, and also when the test run is killed. It needs
Debian's ``docker.io`` and root.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

from cloister.build.builders import Buildah, Docker, Podman

START_SECONDS = 60
STOP_SECONDS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Daemon:
    """A running dockerd.

    Args:
        socket: Where it listens.
    """

    socket: pathlib.Path

    @property
    def variables(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    def environments(self) -> list[dict[str, str]]:
        """What makes ``cloister`` use it, by each docker client that this machine has."""
        path = os.environ["PATH"]
        folders = [str(pathlib.Path(client).parent) for client in clients()]
        return [self.variables | {"PATH": f"{folder}:{path}"} for folder in folders]

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a docker client against it."""
        return subprocess.run(
            [clients()[0], *words],
            env=dict(os.environ) | self.variables,
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )

    def builders(self) -> dict[str, Docker]:
        """The ways to build with it that this machine has: classic, BuildKit."""
        found = {"classic": Docker(program=clients()[0], variables=self.variables, buildkit=False)}
        for client in clients():
            builder = Docker(program=client, variables=self.variables)
            if builder.has_buildkit():
                found["buildkit"] = builder
        return found


@contextlib.contextmanager
def private_daemon() -> Iterator[Daemon]:
    """A dockerd for the time of a block; skips the test where it cannot run."""
    if os.getuid() != 0:
        pytest.skip("a private dockerd needs root")
    for program, package in [
        ("dockerd", "docker.io"),
        ("containerd", "containerd"),
        ("runc", "runc"),
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
    ]:
        if shutil.which(program) is None:
            pytest.skip(f"`{program}` is not there: install {package}")
    clients()
    # Its sockets are below this, and their paths are limited to 107 bytes.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cld-", dir="/tmp"))
    log = folder / "log"
    daemon = Daemon(socket=folder / "docker.sock")
    command = [
        *["setpriv", "--pdeathsig", "KILL"],
        *["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"],
        "dockerd",
        f"--host=unix://{daemon.socket}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
        "--iptables=false",
        "--ip6tables=false",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        _wait_for(daemon, process, log)
        yield daemon
    finally:
        process.kill()
        process.wait(STOP_SECONDS)
        _remove(folder)


def clients() -> list[str]:
    """Every docker client on PATH; skips the test when there is none."""
    folders = os.get_exec_path()
    found = [path for folder in folders if (path := shutil.which("docker", path=folder))]
    if not found:
        pytest.skip("`docker` is not there: install docker.io")
    # /bin is often /usr/bin.
    return list({str(pathlib.Path(path).resolve()): path for path in reversed(found)}.values())[
        ::-1
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store:
    """A store of its own for buildah and podman.

    Args:
        folder: Everything of it.
    """

    folder: pathlib.Path

    @property
    def options(self) -> tuple[str, ...]:
        """What both programs take."""
        return (f"--root={self.folder / 'root'}", f"--runroot={self.folder / 'run'}")

    @property
    def variables(self) -> dict[str, str]:
        """What makes both programs, and ``cloister``, use it without these options."""
        return {"CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf")}

    def builders(self) -> dict[str, Buildah]:
        """Those of the two that are there."""
        known = {"buildah": Buildah(options=self.options), "podman": Podman(options=self.options)}
        return {name: builder for name, builder in known.items() if shutil.which(name)}

    def run(self, *words: str) -> str:
        """Runs the first of the two that is there."""
        program = next(iter(self.builders()), None)
        if program is None:
            pytest.skip("neither `buildah` nor `podman` is there: install buildah")
        done = subprocess.run(
            [program, *self.options, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout


@contextlib.contextmanager
def private_store() -> Iterator[Store]:
    """A store for the time of a block."""
    if os.getuid() != 0:
        pytest.skip("a store of root's buildah needs root")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="clb-", dir="/tmp"))
    store = Store(folder=folder)
    (folder / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\n'
        f'graphroot = "{folder / "root"}"\nrunroot = "{folder / "run"}"\n'
    )
    try:
        yield store
    finally:
        for mount in reversed(_mounts_below(folder)):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        _remove(folder)


def _wait_for(daemon: Daemon, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.skip(f"dockerd does not run here: {log.read_text()[-300:]}")
        if daemon.socket.exists() and daemon.docker("version", check=False).returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail(f"dockerd did not answer within {START_SECONDS} s: {log.read_text()[-2000:]}")


def _mounts_below(folder: pathlib.Path) -> list[str]:
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4] for line in lines]
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]


def _remove(folder: pathlib.Path) -> None:
    """The last processes of a namespace end a moment after its first one."""
    until = time.monotonic() + STOP_SECONDS
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < until)
        time.sleep(0.05)
