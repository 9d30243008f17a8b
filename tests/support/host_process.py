"""``cloister host serve`` as a process of its own, for a platform that is another one."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Self

from tests.support.local_run import EXAMPLE, wait_until
from tests.support.platform_server import PlatformServer


class Project:
    """An enclave that is registered at a platform, and its images.

    Args:
        platform: The platform.
        folder: An empty folder.
        name: The enclave's name.
    """

    def __init__(self, platform: PlatformServer, folder: pathlib.Path, name: str) -> None:
        self.folder = folder
        self.who = platform.asking()
        self.platform = platform
        for file in ("Dockerfile", "hello-enclave"):
            shutil.copy2(EXAMPLE / file, folder / file)
        self.uuid: str = self.who.json("init", name, folder=folder)["uuid"]

    def build(self, version: str, *, dockerfile: str = "") -> dict[str, Any]:
        """Builds an image with a label, ``VERSION.eif``, and gives its PCRs."""
        text = (EXAMPLE / "Dockerfile").read_text()
        (self.folder / "Dockerfile").write_text(f"{text}\nENV VERSION={version}\n{dockerfile}\n")
        made: dict[str, Any] = self.who.json("build", folder=self.folder)
        (self.folder / "enclave.eif").rename(self.folder / f"{version}.eif")
        return made

    def deploy(self, version: str, *words: str) -> str:
        """Registers an image, and gives the id of its deployment."""
        words = ("platform", "deployment", "create", "--eif", f"{version}.eif", *words)
        return str(self.who.json(*words, folder=self.folder)["id"])

    def end(self, deployment: str) -> None:
        """Ends a deployment."""
        self.who.run("platform", "deployment", "end", deployment, folder=self.folder)

    def api_key(self) -> str:
        """An API key for clients."""
        return str(self.who.json("key", "create", "--name", "c", folder=self.folder)["api_key"])

    def token(self, *scopes: str) -> str:
        """A token for a host."""
        given = [word for scope in scopes for word in ("--scope", scope)]
        made = self.who.json(
            "platform", "token", "create", "--name", "host-1", *given, folder=self.folder
        )
        return str(made["token"])


class HostProcess:
    """A host of a project.

    Args:
        project: What it runs.
        folder: Its folder; made by ``cloister host init``.
    """

    def __init__(self, project: Project, folder: pathlib.Path) -> None:
        self.project = project
        self.folder = folder
        self.images = folder / "images"
        self.log = folder.parent / f"{folder.name}.log"
        self.process: subprocess.Popen[str] | None = None
        self.said: dict[str, Any] = {}

    @classmethod
    def make(cls, project: Project, folder: pathlib.Path, *words: str) -> Self:
        """``cloister host init`` for the enclave of a project, on free ports."""
        token = folder.parent / f"{folder.name}.token"
        token.write_text(project.token(f"relay:{project.uuid}"))
        token.chmod(0o600)
        listening = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        project.who.run(
            "host",
            "init",
            "--dir",
            str(folder),
            "--token",
            str(token),
            *listening,
            *words,
            folder=folder.parent,
        )
        return cls(project, folder)

    def add(self, version: str) -> None:
        """Puts an image of the project into the folder of images."""
        shutil.copy(self.project.folder / f"{version}.eif", self.images / f"{version}.eif")

    def start(self, **more: str) -> None:
        """Starts it with more in its environment and waits until it runs; enclaves may not yet."""
        environment = self.project.who.environment() | more
        # What reaches a platform is host.toml's and the token's, not the owner's environment.
        for name in ("CLOISTER_PLATFORM_URL", "CLOISTER_PLATFORM_CA", "CLOISTER_API_KEY"):
            environment.pop(name, None)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [self.project.who.python, *SERVE, "--dir", str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.said = json.loads(line)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of ``/health`` or ``/metrics``."""
        url = self.said["metrics"].removesuffix("/metrics") + path
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def health(self) -> dict[str, Any]:
        """What ``/health`` says of the enclave."""
        found: dict[str, Any] = json.loads(self.get("/health")[1])["enclaves"][0]
        return found

    def metric(self, name: str) -> int:
        """A sample of ``/metrics``."""
        lines = self.get("/metrics")[1].splitlines()
        (value,) = (line.rpartition(" ")[2] for line in lines if line.startswith(f"{name}{{"))
        return int(value)

    def wait_for(self, deployment: str, seconds: float = 60) -> None:
        """Waits until this deployment serves."""
        try:
            wait_until(
                lambda: self.health()["ready"] and self.health()["deployment"] == deployment,
                seconds,
                deployment,
            )
        except AssertionError:
            raise AssertionError(self.log.read_text()) from None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return "https://" + str(self.health()["listen"]).removeprefix("tcp:")

    @property
    def ca_file(self) -> pathlib.Path:
        """What signs the certificates of this machine's enclaves."""
        return self.project.who.home / "cloister" / "dev-ca" / "tls-ca.pem"

    @property
    def nsm_root(self) -> pathlib.Path:
        """What signs the documents of this machine's enclaves."""
        return self.project.who.home / "cloister" / "dev-ca" / "nsm-root.pem"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 60) -> int:
        """Sends a signal, waits for the end, and gives the status."""
        self.send(number)
        assert self.process is not None
        self.process.communicate(timeout=seconds)
        status, self.process = self.process.returncode, None
        return status


@contextlib.contextmanager
def hosting(host: HostProcess, **more: str) -> Iterator[HostProcess]:
    """A host that runs until the end of a ``with`` block."""
    host.start(**more)
    try:
        yield host
    finally:
        if host.process is not None:
            host.end(signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        above = waiting.pop()
        for task in pathlib.Path(f"/proc/{above}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += [int(child) for child in task.read_text().split()]
        found.append(above)
    return found[1:]


def environ_below(pid: int) -> list[dict[bytes, bytes]]:
    """The environments of the user processes below a process, as the kernel has them."""
    found = []
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            content = pathlib.Path(f"/proc/{one}/environ").read_bytes()
            if b"EV_INITIALIZED=true" in content:
                pairs = [pair.partition(b"=") for pair in content.split(b"\0") if pair]
                found.append({os.fsencode(name): value for name, _, value in pairs})
    return found


SERVE = ("-m", "cloister.cli.main", "host", "serve", "--json")
