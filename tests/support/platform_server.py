"""``cloister platform`` as a process of its own: made, started, stopped, killed, started again."""

import contextlib
import json
import pathlib
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any, Self

from tests.support.local_run import Somebody

from cloister.platform.https import PlatformClient
from cloister.platform.remote_owner import RemoteOwner


class PlatformServer:
    """A platform of this test.

    Args:
        who: Who runs it.
        folder: Its folder.
        made: What ``platform init --json`` said.
    """

    def __init__(self, who: Somebody, folder: pathlib.Path, made: dict[str, Any]) -> None:
        self.who = who
        self.folder = folder
        self.made = made
        self.token: str = made["token"]
        self.ca_file = pathlib.Path(made["ca_file"])
        self.url: str = made["url"]
        self.process: subprocess.Popen[str] | None = None
        self.log = folder.parent / f"{folder.name}.log"

    @classmethod
    def make(cls, who: Somebody, folder: pathlib.Path, *words: str) -> Self:
        """``cloister platform init`` on a port that is free now."""
        made = who.json(
            "platform",
            "init",
            "--dir",
            str(folder),
            "--listen",
            free_address(),
            *words,
            folder=folder.parent,
        )
        return cls(who, folder, made)

    def start(self) -> None:
        """Starts it and waits until it accepts."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [self.who.python, *SERVE, "--dir", str(self.folder)],
                env=self.who.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        assert json.loads(line)["url"] == self.url

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; gives the status."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        status, self.process = self.process.returncode, None
        return status

    def owner(self, token: str | None = None) -> RemoteOwner:
        """The owner's calls with the owner's token, or another."""
        return RemoteOwner(self.client(token))

    def client(self, token: str | None = None) -> PlatformClient:
        """A connection with the owner's token, or another."""
        return PlatformClient(self.url, token or self.token, ca_file=self.ca_file)

    def asking(self, token: str | None = None) -> Somebody:
        """Somebody whose commands ask this platform."""
        more = {
            "CLOISTER_PLATFORM_URL": self.url,
            "CLOISTER_PLATFORM_CA": str(self.ca_file),
            "CLOISTER_API_KEY": token or self.token,
        }
        return Somebody(home=self.who.home, more=more)

    def raw(self, request: bytes) -> bytes:
        """What the server answers to these bytes."""
        context = ssl.create_default_context(cafile=self.ca_file)
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as link,
        ):
            link.sendall(request)
            return b"".join(iter(lambda: link.recv(65536), b""))


def free_address() -> str:
    """An address of loopback with a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def serving(who: Somebody, folder: pathlib.Path, *words: str) -> Iterator[PlatformServer]:
    """A platform that runs until the end."""
    server = PlatformServer.make(who, folder, *words)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.end(signal.SIGKILL)


SERVE = ("-m", "cloister.cli.main", "platform", "serve", "--json")
