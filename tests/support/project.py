"""A folder with a Dockerfile, and ``cloister`` as a process in it."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Self

DOCKERFILE = """\
FROM scratch
COPY app /app
EXPOSE 8080
ENTRYPOINT ["/app"]
"""


class Project:
    """A folder with a Dockerfile."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.toml = folder / "enclave.toml"
        self.eif = folder / "enclave.eif"
        (folder / "Dockerfile").write_text(DOCKERFILE)
        (folder / "app").write_bytes(b"\x7fELF program")
        (folder / "app").chmod(0o755)

    @classmethod
    def of(cls, folder: pathlib.Path) -> Self:
        """A folder that has its files already."""
        project = cls.__new__(cls)
        project.folder = folder
        project.toml, project.eif = folder / "enclave.toml", folder / "enclave.eif"
        return project

    def run(self, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
        """Runs ``cloister`` to its end; its status must be this one."""
        done = subprocess.run(
            [sys.executable, "-m", "cloister.cli.main", *words],
            cwd=self.folder,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def json(self, *words: str, status: int = 0, **environment: str) -> dict[str, Any]:
        """The one JSON object that a command prints."""
        out, _ = self.run(*words, "--json", status=status, **environment)
        (line,) = out.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def error(self, *words: str, status: int) -> dict[str, str]:
        """The error object that a command prints."""
        problem: dict[str, str] = self.json(*words, status=status)["error"]
        return problem

    def files(self) -> dict[str, bytes]:
        """Every file of the folder."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
