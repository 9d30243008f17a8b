"""``cloister dev`` as a process of its own, with any settings, and what the kernel says of it."""

import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import requests
from tests.support.raw_client import RawClient

UUID = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DevProcess:
    """A data plane that runs.

    Attributes:
        process: The process; its standard error goes to :attr:`stderr`.
        address: ``HOST:PORT`` for clients.
        metrics: ``HOST:PORT`` of ``/metrics``.
        key: The first API key; empty where none is asked for.
    """

    process: subprocess.Popen[str]
    address: str
    url: str
    ca_file: str
    metrics: str
    key: str
    app_public_key: bytes
    stderr: pathlib.Path

    def client(self, before: bytes = b"") -> RawClient:
        """A connection to it."""
        return RawClient(self.address, self.ca_file, before)

    def metric(self, name: str) -> float:
        """The value of ``cloister_<name>``; without labels in the name, the sum over all."""
        text = requests.get(f"http://{self.metrics}/metrics", timeout=10).text
        labels = "" if "{" in name else r"(?:\{[^}]*\})?"
        pattern = rf"^cloister_{re.escape(name)}{labels} (\S+)$"
        found = re.findall(pattern, text, re.MULTILINE)
        assert found, f"no metric {name}"
        return sum(map(float, found))

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of a field of ``/proc/PID/status``: ``VmRSS``, or ``VmHWM`` for the most ever."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split(f"{field}:")[1].split()[0]) * 1024

    def forget_peak(self) -> None:
        """Makes ``VmHWM`` start again from what is used at the moment (proc(5), clear_refs)."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def processor_seconds(self) -> float:
        """Processor time so far, user and system, of its own."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        ticks = stat.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / 100


@contextlib.contextmanager
def dev_process(
    upstream: str,
    folder: pathlib.Path,
    *arguments: str,
    top: str = "",
    tables: str = "",
    keys: tuple[str, ...] = (),
) -> Iterator[DevProcess]:
    """Runs it for the length of a block.

    Args:
        upstream: Where the user process listens.
        folder: For its files.
        arguments: More options.
        top: Settings of ``enclave.toml`` above its first table.
        tables: Tables of it.
        keys: API keys; one is made without.
    """
    uuids = "".join(f'{name} = "{UUID}"\n' for name in ("uuid", "app_uuid", "team_uuid"))
    trust = f'[trust]\nservice_keys = ["{"A" * 43}="]\n'
    toml = f'version = 1\nname = "proof"\n{uuids}{top}\n{trust}{tables}'
    (folder / "enclave.toml").write_text(toml, encoding="utf-8")
    command = [sys.executable, "-m", "cloister.cli.main", "dev", "--json", "--upstream", upstream]
    command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments]
    if keys:
        (folder / "keys").write_text("\n".join(keys), encoding="ascii")
        command += ["--api-key-file", str(folder / "keys")]
    stderr = folder / "stderr"
    with (
        stderr.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, stderr.read_text(encoding="utf-8")
            shown = json.loads(line)
            yield DevProcess(
                process=process,
                address=shown["address"],
                url=shown["url"],
                ca_file=shown["ca_file"],
                metrics=shown["metrics"],
                key=keys[0] if keys else shown.get("api_key", ""),
                app_public_key=bytes.fromhex(shown["app_public_key"]),
                stderr=stderr,
            )
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=3)
            process.kill()
            process.wait()
