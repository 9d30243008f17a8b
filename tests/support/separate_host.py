"""A host that is a process of its own, beside an enclave that outlives it.

``cloister run`` holds platform, host and enclave in one process, and the enclave dies with it. In
production the host process can be killed and started again while the enclave goes on. Here the
same parts are apart: ``python -m tests.support.separate_host SPECIFICATION`` is the host, and
whoever imports this is the runner.
"""

import dataclasses
import datetime as dt
import json
import pathlib
import signal
import subprocess
import sys
import uuid
from typing import Any, Self

from tests.support.local_run import ROOT, Somebody

from cloister.cli import _local_key, _run_plan
from cloister.cli._run_platform import NSM_ROOT_FILE, _deploy
from cloister.host import DevelopmentCa, Host, HostOptions
from cloister.host.boot import module_id
from cloister.host.objects import DirectoryObjects
from cloister.host.relay import Relay
from cloister.platform import local
from cloister.platform.api_keys import ApiKeys
from cloister.platform.clock import system
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.owner import Owner
from cloister.runners import Launch, SandboxRunner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification:
    """Where everything of the enclave is.

    Args:
        enclave: Its uuid.
        project: Folder of ``enclave.toml``.
        dev_ca: Folder of the development roots.
        run_dir: Folder of the sockets.
        ingress: Socket that the enclave accepts clients on.
        health: Socket of its health port.
        agent: Socket that it calls.
        log_dir: Folder of the log segments.
    """

    enclave: str
    project: str
    dev_ca: str
    run_dir: str
    ingress: str
    health: str
    agent: str
    log_dir: str


class Enclave:
    """An enclave, and the relay before it. The host is started, and killed, apart from it."""

    def __init__(self, project: pathlib.Path, run_dir: pathlib.Path, dev_ca: pathlib.Path) -> None:
        self._runner = SandboxRunner(dev_ca_dir=dev_ca, console=lambda _: None)
        endpoints = self._runner.prepare(run_dir)
        self._plan = _run_plan.make(
            project / "enclave.toml",
            image=None,
            listen="tcp:127.0.0.1:0",
            dev_ca=dev_ca,
            runtime=run_dir,
            start_timeout=_PATIENCE,
        )
        store = local.open_store(project)
        try:
            _deploy(Owner(store), self._plan)
            self.api_key = _local_key.local_key(ApiKeys(store, self._plan.app), store.directory)
            self.log_dir = store.directory / "logs" / str(self._plan.enclave)
        finally:
            store.close()
        self.ca_file = DevelopmentCa(dev_ca, now=system()).certificate_path
        self.relay = Relay("tcp:127.0.0.1:0", endpoints.ingress, proxy_protocol=True)
        self._run_dir = run_dir
        self.specification = Specification(
            enclave=str(self._plan.enclave),
            project=str(project),
            dev_ca=str(dev_ca),
            run_dir=str(run_dir / "host"),
            ingress=endpoints.ingress,
            health=endpoints.health,
            agent=endpoints.agent,
            log_dir=str(self.log_dir),
        )

    def __enter__(self) -> Self:
        plan = self._plan
        self.relay.start()
        self._enclave = self._runner.start(
            Launch(
                image=plan.image,
                run_dir=self._run_dir,
                module_id=module_id(),
                memory_bytes=plan.memory_bytes,
                cpus=plan.cpus,
                debug=plan.debug,
                grace_ms=5_000,
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.relay.stop()
        self._enclave.stop()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.relay.address.rpartition(":")[2])

    def host(self, who: Somebody) -> subprocess.Popen[str]:
        """Starts the host process and waits until the enclave can call it."""
        text = json.dumps(dataclasses.asdict(self.specification))
        process = subprocess.Popen(
            [who.python, "-m", "tests.support.separate_host", text],
            cwd=ROOT,
            env=who.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", "the host process did not start"
        return process


def _serve(specification: Specification) -> None:
    """The host process: agent API, certificates, bundles, logs."""
    dev_ca = pathlib.Path(specification.dev_ca)
    store = local.open_store(pathlib.Path(specification.project))
    platform = EmbeddedPlatform(store, development_root=dev_ca / NSM_ROOT_FILE)
    host = Host(
        HostOptions(
            enclave=uuid.UUID(specification.enclave),
            ingress=specification.ingress,
            health=specification.health,
            agent=specification.agent,
            listen="tcp:127.0.0.1:0",
            run_dir=pathlib.Path(specification.run_dir),
            log_dir=pathlib.Path(specification.log_dir),
            objects=DirectoryObjects(store.directory / "objects"),
        ),
        platform=platform,
        certificates=DevelopmentCa(dev_ca, now=system()),
    )
    with host:
        sys.stdout.write("up\n")
        sys.stdout.flush()
        signal.pause()


def _specification(text: str) -> Specification:
    fields: dict[str, Any] = json.loads(text)
    return Specification(**fields)


_PATIENCE = dt.timedelta(seconds=60)

if __name__ == "__main__":
    _serve(_specification(sys.argv[1]))
