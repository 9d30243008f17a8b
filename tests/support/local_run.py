"""``cloister run`` as a process of its own, from a built image to nothing left."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Self

from tests.support.for_everybody import usable

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "hello-enclave"
START_SECONDS = 90
STOP_SECONDS = 60
NOBODY = 65534  # no subordinate ids, no home, no rights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Somebody:
    """Who runs the commands: this user, or another one with a home of its own.

    Args:
        home: ``HOME`` and ``CLOISTER_HOME`` are below it.
        uid: User and group id; ``None``: this user.
        python: Interpreter.
        paths: Folders it imports from.
        libraries: Folder of its shared library, when it is not in the usual one.
        more: Other variables of its environment.
    """

    home: pathlib.Path
    uid: int | None = None
    python: str = sys.executable
    paths: tuple[str, ...] = tuple(path for path in sys.path if path)
    libraries: str | None = None
    more: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def unprivileged(cls, folder: pathlib.Path) -> Self:
        """Another user than root, with a home of its own below ``folder``.

        Args:
            folder: An empty folder that everybody can enter.
        """
        home = folder / "home"
        home.mkdir(mode=0o700)
        os.chown(home, NOBODY, NOBODY)
        found = usable(folder)
        return cls(
            home=home,
            uid=NOBODY,
            python=found.python,
            paths=found.paths,
            libraries=found.libraries,
        )

    def environment(self) -> dict[str, str]:
        """What a fresh login would have, and where the package is."""
        libraries = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        return libraries | {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "CLOISTER_HOME": str(self.home / "cloister"),
            "PYTHONPATH": os.pathsep.join(self.paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
            **self.more,
        }

    def popen(
        self,
        words: list[str],
        folder: pathlib.Path,
        *,
        module: str = "cloister.cli.main",
        **more: Any,
    ) -> subprocess.Popen[str]:
        """Starts ``cloister``, or another module, with these words."""
        who: dict[str, Any] = {}
        if self.uid is not None:
            who = {"user": self.uid, "group": self.uid, "extra_groups": []}
        return subprocess.Popen(
            [self.python, "-m", module, *words],
            cwd=folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **who,
            **more,
        )

    def run(
        self, *words: str, folder: pathlib.Path, status: int = 0, given: str | None = None
    ) -> tuple[str, str]:
        """Runs ``cloister`` to its end; its status must be this one.

        ``given`` is its standard input.
        """
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        with self.popen(list(words), folder, stdin=stdin) as process:
            out, err = process.communicate(given, timeout=300)
        assert process.returncode == status, (process.returncode, out, err)
        return out, err

    def json(self, *words: str, folder: pathlib.Path, status: int = 0) -> Any:
        """The one JSON object that a command prints."""
        return json.loads(self.run(*words, "--json", folder=folder, status=status)[0])


def make_project(folder: pathlib.Path, who: Somebody) -> pathlib.Path:
    """``init`` and ``build`` of examples/hello-enclave; the binary comes from `make hello`."""
    project = folder / "hello"
    project.mkdir()
    for name in ("Dockerfile", "hello-enclave"):
        shutil.copy2(EXAMPLE / name, project / name)
    if who.uid is not None:
        os.chown(project, who.uid, who.uid)
    who.run("init", "hello", folder=project)
    who.run("build", folder=project)
    return project


class LocalRun:
    """A ``cloister run --json`` that is ready."""

    def __init__(self, process: subprocess.Popen[str], said: dict[str, Any]) -> None:
        self.process = process
        self.said = said

    @classmethod
    def start(cls, who: Somebody, project: pathlib.Path, *words: str) -> Self:
        """Starts it and waits for the line that says it is ready."""
        process = who.popen(["run", "--listen", "127.0.0.1:0", "--json", *words], project)
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        said = json.loads(line) if line else {}
        if "url" not in said:
            process.kill()
            raise AssertionError(f"`cloister run` is not ready: {line} {process.stderr.read()}")
        return cls(process, said)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, out, err

    def curl(self, path: str, *options: str, key: str | None = "") -> tuple[int, str]:
        """Status and body of a request; the key of the run unless another or none is given."""
        key = self.said["api_key"] if key == "" else key
        header = [] if key is None else ["-H", f"api-key: {key}"]
        fixed = ["--cacert", self.said["ca_file"], "--max-time", "20", "-w", "\n%{http_code}"]
        done = subprocess.run(
            ["curl", "-sS", *fixed, *header, *options, f"{self.said['url']}{path}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def end(self) -> None:
        """Ends it when a test did not."""
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.interrupt()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def running(who: Somebody, project: pathlib.Path, *words: str) -> Iterator[LocalRun]:
    """A run for the time of a ``with`` block."""
    run = LocalRun.start(who, project, *words)
    try:
        yield run
    finally:
        run.end()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be reaped."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(is_true: Any, seconds: float, what: str) -> float:
    """Waits for something to become true and returns how long it took, in seconds."""
    started = time.monotonic()
    while not is_true():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started
