"""Several enclaves at once, each with a host of its own, on one platform and one object store.

Run as a module: ``python -m tests.support.enclave_pair FOLDER…``, each the folder of a project that
is built. The store and the objects are those of the first folder. It prints a JSON object when
every enclave is ready, ``{"urls": […], "metrics": […], "ca_file", "nsm_root"}``, another for each
event, and ends with its standard input. It is a process of its own because a launcher lives and
dies with the thread that started it.
"""

import contextlib
import datetime as dt
import json
import os
import pathlib
import sys
import tempfile
import time
import uuid

from cloister._native import hostplane
from cloister.cli import _run_plan
from cloister.cli._run_platform import NSM_ROOT_FILE
from cloister.host import DevelopmentCa, Host, HostOptions
from cloister.host import run_dir as run_dirs
from cloister.host.objects import DirectoryObjects
from cloister.platform import local
from cloister.platform.clock import system
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.registry import Registry
from cloister.runners import Launch, SandboxRunner

START_SECONDS = 90


def main(folders: list[pathlib.Path]) -> None:
    """Starts them together, waits for all, and for the end of the standard input."""
    home = pathlib.Path(os.environ["CLOISTER_HOME"])
    dev_ca, runtime = home / "dev-ca", home / "runtime"
    runtime.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as ends:
        store = local.open_store(folders[0])
        ends.callback(store.close)
        platform = EmbeddedPlatform(store, development_root=dev_ca / NSM_ROOT_FILE)
        ends.callback(platform.close)
        authority = DevelopmentCa(dev_ca, now=system())
        hosts, healths = [], []
        for number, folder in enumerate(folders):
            plan = _run_plan.make(
                folder / "enclave.toml",
                image=None,
                listen="tcp:127.0.0.1:0",
                dev_ca=dev_ca,
                runtime=runtime,
                start_timeout=dt.timedelta(seconds=START_SECONDS),
            )
            Registry(store).add_deployment(plan.enclave, plan.registers)
            run_dir = run_dirs.make(runtime, pathlib.Path(tempfile.gettempdir()))
            ends.callback(run_dirs.remove, run_dir)
            runner = SandboxRunner(dev_ca_dir=dev_ca, console=lambda _: None)
            endpoints = runner.prepare(run_dir)
            host = Host(
                HostOptions(
                    enclave=plan.enclave,
                    ingress=endpoints.ingress,
                    health=endpoints.health,
                    agent=endpoints.agent,
                    listen=plan.listen,
                    run_dir=run_dir,
                    log_dir=home / f"logs-{number}",
                    objects=DirectoryObjects(store.directory / "objects"),
                ),
                platform=platform,
                certificates=authority,
                events=_told,
            )
            ends.callback(host.stop)
            host.start()
            launch = Launch(
                image=plan.image,
                run_dir=run_dir,
                module_id=f"i-0123456789abcdef0-enc{number:016x}",
                memory_bytes=plan.memory_bytes,
                cpus=plan.cpus,
                debug=plan.debug,
                grace_ms=1000,
            )
            hosts.append((host, runner, launch))
            healths.append(endpoints.health)
        for _, runner, launch in hosts:
            ends.callback(runner.start(launch).kill)
        deadline = time.monotonic() + START_SECONDS
        while not all(host.health.ready for host, _, _ in hosts):
            if time.monotonic() > deadline:
                raise TimeoutError([host.health for host, _, _ in hosts])
            time.sleep(0.02)
        addresses = [host.accept().removeprefix("tcp:") for host, _, _ in hosts]
        _say(
            {
                "urls": [f"https://{address}" for address in addresses],
                "metrics": [_metrics(health) for health in healths],
                "ca_file": str(authority.certificate_path),
                "nsm_root": str(dev_ca / NSM_ROOT_FILE),
            }
        )
        sys.stdin.read()


def _metrics(address: str) -> str:
    timeout = dt.timedelta(seconds=5)
    status, body = hostplane.request(address, "GET", "/metrics", timeout=timeout)
    assert status == 200
    return bytes(body).decode()


def _told(_: uuid.UUID, kind: str, message: str) -> None:
    _say({"event": kind, "message": message})


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - a program of its own


if __name__ == "__main__":
    main([pathlib.Path(word) for word in sys.argv[1:]])
