"""A PostgreSQL server of a test's own: Debian's programs, a folder of its own, a Unix socket only.

Its programs refuse to run as root, so as root they run as ``nobody``.
"""

import dataclasses
import os
import pathlib
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest

NEWEST_FIRST = sorted(
    pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)
)


@dataclasses.dataclass
class Server:
    """A server that can be stopped and started again.

    Args:
        programs: Where ``initdb`` and ``pg_ctl`` are.
        folder: Its data and its socket.
    """

    programs: pathlib.Path
    folder: pathlib.Path

    def make(self) -> None:
        """Makes its data."""
        self._run("initdb", "-A", "trust", "-U", "cloister", "-N", "-D", str(self.folder / "data"))

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._ctl("-w", "-l", log, "-o", f"{options} -c fsync=off", "start")

    def stop(self) -> None:
        """Stops it and breaks every connection."""
        self._ctl("-w", "-m", "immediate", "stop")

    def database(self) -> str:
        """Makes an empty database and returns its address."""
        name = f"test_{secrets.token_hex(6)}"
        self._run("createdb", "-h", str(self.folder), "-U", "cloister", name)
        return f"postgresql://cloister@/{name}?host={self.folder}"

    def _ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        nobody = pwd.getpwnam("nobody")
        ids = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # pg_ctl hands its own to the server, which keeps it open
            stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            check=False,
            **(ids if os.geteuid() == 0 else {}),  # type: ignore[arg-type]
        )
        said = (done.stderr or b"").decode(errors="replace")
        assert done.returncode == 0, f"{program}: {said}"


def running() -> Iterator[Server]:
    """A server, until the end of the test that asked; skips where PostgreSQL is not installed."""
    if not NEWEST_FIRST:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = pathlib.Path("/tmp") / f"cloister-pg-{secrets.token_hex(6)}"  # noqa: S108 - short
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    server = Server(NEWEST_FIRST[0], folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        subprocess.run(
            [NEWEST_FIRST[0] / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"],
            check=False,
            capture_output=True,
            **({"user": "nobody"} if os.geteuid() == 0 else {}),  # type: ignore[arg-type]
        )
        shutil.rmtree(folder, ignore_errors=True)
