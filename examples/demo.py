"""The main job, once, step by step: an image becomes an enclave that a client attests and talks to.

Run it by ``make demo``. Everything happens in a temporary folder and on loopback; the enclave runs
in the sandbox, under the development root. Each line says what was done and how long it took; a
check that does not hold ends the demo with exit status 1. Ctrl-C at any point stops the enclave and
cleans up.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from cloister import crypto
from cloister.attest import TrustAnchor
from cloister.client import Session
from cloister.errors import CloisterError, MeasurementMismatch, UntrustedChain

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "hello-enclave"
START_SECONDS = 60
STOP_SECONDS = 45


def main() -> int:
    """Runs the demo and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set-up-seconds", type=float, help="how long `make` took before this")
    options = parser.parse_args()
    if options.set_up_seconds is not None:
        line("set up: virtual environment, extension, static binaries", options.set_up_seconds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = Traces.now()
    with tempfile.TemporaryDirectory(prefix="cloister-demo-") as name:
        folder = pathlib.Path(name)
        home = folder / "home"
        environment = os.environ | {"CLOISTER_HOME": str(home), "NO_COLOR": "1"}
        project = make_project(folder, environment)
        image = build_twice(project, environment)
        with running(project, environment) as enclave:
            isolation(enclave)
            context = talk(enclave, image)
            refusals(enclave, image)
            show_log(enclave, context)
            with step("stopped by Ctrl-C: drained, then ended"):
                enclave.interrupt()
    with step("nothing left: no process, no mount, no namespace"):
        Traces.now().must_not_exceed(before)
    print("demo: all steps done")
    return 0


def make_project(folder: pathlib.Path, environment: dict[str, str]) -> pathlib.Path:
    """``cloister init`` beside a copy of the example."""
    project = folder / "hello"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("src", "Cargo.*", "target"))
    with step("cloister init hello"):
        cloister(["init", "hello"], project, environment)
    return project


def build_twice(project: pathlib.Path, environment: dict[str, str]) -> dict[str, str]:
    """``cloister build``, twice: same bytes, PCRs in the toml, its comments intact."""
    toml = project / "enclave.toml"
    mark = "# this comment is the owner's and stays\n"
    toml.write_text(mark + toml.read_text())
    with step("cloister build: Dockerfile to enclave.eif"):
        built = cloister(["build"], project, environment)
    first = hashlib.sha256((project / "enclave.eif").read_bytes()).hexdigest()
    pcrs: dict[str, str] = built["pcrs"]
    for register in ("PCR0", "PCR1", "PCR2", "PCR8"):
        print(f"    {register} {pcrs[register]}")
    text = toml.read_text()
    check(text.startswith(mark), "the comment in enclave.toml is intact")
    check(all(value in text for value in pcrs.values()), "the PCRs are in enclave.toml")
    with step("cloister build again: byte-identical"):
        cloister(["build"], project, environment)
        second = hashlib.sha256((project / "enclave.eif").read_bytes()).hexdigest()
        check(first == second, "both builds have the same SHA-256")
    return pcrs


@dataclasses.dataclass(frozen=True, slots=True)
class Enclave:
    """A running ``cloister run`` and what it said when it was ready."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    def interrupt(self) -> None:
        """Ctrl-C, and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(STOP_SECONDS)
        check(status in (0, 130), f"`cloister run` ended with status {status}")


@contextlib.contextmanager
def running(project: pathlib.Path, environment: dict[str, str]) -> Iterator[Enclave]:
    """``cloister run``, until its one JSON line says that it is ready."""
    command = [sys.executable, "-m", "cloister.cli.main", "run", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--json", "--quiet"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with step("cloister run: sandbox started, provisioned, ready"):
            assert process.stdout is not None
            said = json.loads(process.stdout.readline() or "{}")
            check("url" in said, f"`cloister run` is ready: {said or 'it ended'}")
        yield Enclave(process, said)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def isolation(enclave: Enclave) -> None:
    """What the kernel says about the enclave's init, seen from outside."""
    pid = enclave.said["init_pid"]
    with step("own namespaces, no network but lo"):
        kinds = ("user", "mnt", "pid", "ipc", "uts", "net")
        for kind in kinds:
            ours, theirs = (
                pathlib.Path(f"/proc/{who}/ns/{kind}").readlink() for who in ("self", pid)
            )
            check(ours != theirs, f"{kind} namespace is its own")
        devices = pathlib.Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        names = [device.split(":")[0].strip() for device in devices]
        check(names == ["lo"], f"network devices: {names}")


def session(enclave: Enclave, measurements: dict[str, str], **changes: Any) -> Session:
    """A client that accepts these measurements only."""
    settings: dict[str, Any] = {
        "enclave": enclave.said["url"],
        "policy": measurements,
        "trust_anchor": TrustAnchor.dangerous_root(pathlib.Path(enclave.said["nsm_root"])),
        "ca_file": enclave.said["ca_file"],
        "api_key": enclave.said["api_key"],
    }
    return Session(**(settings | changes))


def talk(enclave: Enclave, image: dict[str, str]) -> str:
    """Attest, then post encrypted fields; the application answers with what it saw in clear."""
    with step("fields encrypted with the app's public key"):
        public = bytes.fromhex(enclave.said["app_public_key"])
        clear = {"name": "Ada", "card": 4242424242424242, "agreed": True}
        sealed = crypto.encrypt(clear, public)
        check(all(value.startswith("ev:") for value in sealed.values()), "every field is a token")
        print(f"    sent: {json.dumps(sealed)[:100]}…")
    with session(enclave, image) as client:
        with step("client attested the enclave, then posted"):
            answer = client.post(f"{enclave.said['url']}/hello", json=sealed, timeout=20)
        check(answer.status_code == 200, f"answer {answer.status_code}: {answer.text[:200]}")
        seen = answer.json()
        print(f"    the application saw: {json.dumps(seen['saw'])}")
        check(seen["saw"] == clear, "the application saw every field in clear, with its type")
        context: str = answer.headers["x-evervault-ctx"]
        print(f"    x-evervault-ctx: {context}")
    return context


def refusals(enclave: Enclave, image: dict[str, str]) -> None:
    """Three ways to be turned away, each before the application sees anything."""
    wrong = image | {"PCR0": "ab" * 48}
    url = f"{enclave.said['url']}/hello"
    with step("a wrong PCR: refused by the client"):
        must_refuse(MeasurementMismatch, lambda: session(enclave, wrong).post(url, json={}))
    with step("the production root: refused by the client"):
        anchor = TrustAnchor.aws_nitro()
        must_refuse(
            UntrustedChain, lambda: session(enclave, image, trust_anchor=anchor).post(url, json={})
        )
    with step("a wrong API key: refused by the enclave with 401"):
        key = "ck_nobody_" + "A" * 43
        with session(enclave, image, api_key=key) as client:
            answer = client.post(url, json={}, timeout=20)
        check(answer.status_code == 401, f"answer {answer.status_code}: {answer.text[:200]}")
        print(f"    {answer.json()['message']}")


def must_refuse(kind: type[CloisterError], call: Any) -> None:
    """The call must raise exactly this, and its message is shown."""
    try:
        call()
    except kind as refusal:
        print(f"    {type(refusal).__name__}: {refusal.message.splitlines()[0]}")
        return
    sys.exit(f"demo: failed: {kind.__name__} was expected and nothing was raised")


def show_log(enclave: Enclave, context: str) -> None:
    """The transaction log line of the request, as the host keeps it."""
    folder = pathlib.Path(enclave.said["log_dir"])
    with step("transaction log reached the host's disk"):
        deadline = time.monotonic() + 10
        while True:
            for segment in sorted(folder.rglob("*")):
                if segment.is_file():
                    for record in segment.read_text().splitlines():
                        if context in record:
                            print(f"    {record}")
                            return
            check(time.monotonic() < deadline, "the log line arrives within 10 s")
            time.sleep(0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class Traces:
    """What a run could leave behind on this machine."""

    processes: frozenset[str]
    mounts: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def now(cls) -> "Traces":
        """Reads them."""
        processes = set()
        for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if comm.read_text().startswith("cloister"):
                    processes.add(comm.parent.name)
        mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
        runtime = pathlib.Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        folders = {str(path) for path in runtime.glob("cloister-run-*")}
        return cls(frozenset(processes), frozenset(mounts), frozenset(folders))

    def must_not_exceed(self, before: "Traces") -> None:
        """Nothing is there that was not there before."""
        for field in dataclasses.fields(self):
            left = getattr(self, field.name) - getattr(before, field.name)
            check(not left, f"{field.name} left behind: {sorted(left)}")


def cloister(words: list[str], folder: pathlib.Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs one command with ``--json`` and returns what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", *words, "--json", "--quiet"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    check(done.returncode == 0, f"cloister {' '.join(words)}: {done.stdout.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextlib.contextmanager
def step(label: str) -> Iterator[None]:
    """Says what was done and how long it took, when it was done."""
    started = time.monotonic()
    yield
    line(label, time.monotonic() - started)


def line(label: str, seconds: float) -> None:
    """One step, with its time."""
    print(f"[{seconds:7.2f} s] {label}", flush=True)


def check(holds: object, what: str) -> None:
    """Ends the demo when something does not hold."""
    if not holds:
        sys.exit(f"demo: failed: {what}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demo: interrupted, everything stopped")
