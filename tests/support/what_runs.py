"""One image seen in four ways: what Docker says of it and does with it, and what we do.

The image is built from one Dockerfile by a private dockerd and by the native builder. Its program
is ``fixture-witness``, which says how it was started; Docker runs it as a container, and the
sandbox as the user process of an enclave whose data plane is a script.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import pathlib
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.support import static_binaries
from tests.support.container_daemon import Daemon
from tests.support.project import Project
from tests.support.sandbox_image import Launched, eventually, launched

from cloister import config
from cloister.build import FromDockerfile, Request, Silent, build_image, dockerfile
from cloister.build.image_config import DEFAULT_PATH, Healthcheck, ImageConfig
from cloister.build.sources import SavedImage

BASE = """\
FROM scratch AS base
COPY files /
COPY --chown=1000:1001 files/data /owned
"""
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
homeless:x:1002:1002:::
twin:x:1000:44:Twin:/home/twin:/bin/sh
many:x:1003:1003::/home/many:/bin/sh
"""
GROUP = """\
root:x:0:
app:x:1001:
www:x:33:other,app,many
logs:x:44:app,many
many:x:1003:many
"""
STOP_SECONDS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What the witness said.

    Args:
        main: As the main process.
        check: As the health check, when there is one.
        signal: What was sent to stop it.
    """

    main: dict[str, Any]
    check: dict[str, Any] | None
    signal: int | None


def write_context(folder: pathlib.Path, text: str) -> None:
    """A Dockerfile that begins with :data:`BASE`, and the files that it copies."""
    files = folder / "files"
    (files / "bin").mkdir(parents=True)
    shutil.copy(static_binaries.fixture("fixture-witness"), files / "bin" / "app")
    for name in ("sh", "bash", "check"):
        (files / "bin" / name).symlink_to("app")
    (files / "etc").mkdir()
    (files / "etc" / "passwd").write_text(PASSWD)
    (files / "etc" / "group").write_text(GROUP)
    (files / "data" / "deep").mkdir(parents=True)
    (files / "data" / "file").write_text("content")
    (files / "data" / "deep" / "other").write_text("more")
    (files / "data" / "link").symlink_to("/etc/passwd")
    (files / "tools").mkdir()
    (files / "tools" / "app").symlink_to("/bin/app")
    for path in (files, *files.rglob("*")):
        if not path.is_symlink():
            is_executable = path.is_dir() or path.name == "app"
            path.chmod(0o755 if is_executable else 0o644)
    (folder / "Dockerfile").write_text(BASE + text)


def native_config(folder: pathlib.Path) -> ImageConfig:
    """The settings by the native builder."""
    with tempfile.TemporaryDirectory() as scratch:
        options = dockerfile.Options(scratch=pathlib.Path(scratch))
        return dockerfile.run(folder / "Dockerfile", folder, options).config


def saved_config(daemon: Daemon, name: str, scratch: pathlib.Path) -> ImageConfig:
    """The settings by the reader of ``docker save``."""
    archive = scratch / "saved.tar"
    daemon.docker("save", "--output", str(archive), name)
    return SavedImage(archive, scratch).config


def inspected_config(daemon: Daemon, name: str) -> ImageConfig:
    """The settings as ``docker image inspect`` says them, in our words."""
    (told,) = json.loads(daemon.docker("image", "inspect", name).stdout)
    found = told["Config"]
    check = found.get("Healthcheck")
    default = Healthcheck(test=[])
    # A container gets Docker's own PATH when the image sets none (moby `daemon/oci_linux.go`).
    env = dict(variable.split("=", 1) for variable in found.get("Env") or [])
    ports = [port.split("/") for port in found.get("ExposedPorts") or {}]
    return ImageConfig(
        env={"PATH": DEFAULT_PATH} | env,
        entrypoint=found.get("Entrypoint") or [],
        cmd=found.get("Cmd") or [],
        cwd=found.get("WorkingDir") or "/",
        user=found.get("User") or "",
        exposed=[(int(number), protocol) for number, protocol in ports],
        labels=found.get("Labels") or {},
        stop_signal=found.get("StopSignal") or None,
        healthcheck=Healthcheck(
            test=check["Test"],
            # Nanoseconds; 0, or nothing: the default.
            interval_ms=check.get("Interval", 0) // 1_000_000 or default.interval_ms,
            timeout_ms=check.get("Timeout", 0) // 1_000_000 or default.timeout_ms,
            start_period_ms=check.get("StartPeriod", 0) // 1_000_000,
            retries=check.get("Retries", 0) or default.retries,
        )
        if check and check["Test"] != ["NONE"]
        else None,
        shell=found.get("Shell") or ["/bin/sh", "-c"],
        architecture=told["Architecture"],
        on_build=found.get("OnBuild") or [],
        volumes=list(found.get("Volumes") or {}),
    )


def comparable(settings: ImageConfig) -> dict[str, Any]:
    """Settings without the order of what has none, and folders without a slash at their end."""
    found = dataclasses.asdict(settings)
    found["cwd"] = posixpath.normpath(settings.cwd)
    found["exposed"] = sorted(settings.exposed)
    found["volumes"] = sorted(settings.volumes)
    found["env"] = list(settings.env.items())
    return found


def run_by_docker(daemon: Daemon, name: str, *, is_checked: bool) -> Seen:
    """Runs an image as a container, without options that say what its settings say."""
    container = daemon.docker("run", "--detach", "--network", "none", name).stdout.strip()
    try:
        return _seen_in_docker(daemon, container, is_checked=is_checked)
    finally:
        daemon.docker("rm", "--force", "--volumes", container)


def _seen_in_docker(daemon: Daemon, container: str, *, is_checked: bool) -> Seen:
    def logs() -> str:
        return daemon.docker("logs", container).stdout

    def checks() -> list[dict[str, Any]]:
        told = daemon.docker("inspect", container, "--format", "{{json .State.Health.Log}}")
        found: list[dict[str, Any]] = json.loads(told.stdout) or []
        return found

    assert eventually(lambda: "witness " in logs(), STOP_SECONDS), logs()
    check = None
    if is_checked:
        assert eventually(checks, STOP_SECONDS)
        check = witness(checks()[0]["Output"], "")
    daemon.docker("stop", "--time", str(STOP_SECONDS), container)
    return Seen(main=witness(logs(), ""), check=check, signal=signal_of(logs(), ""))


def build_enclave(project: Project) -> bytes:
    """The image as an enclave, with the script for a data plane."""
    project.toml.write_text(project.toml.read_text().replace("debug = false", "debug = true"))
    toml = config.load(project.toml)
    assert toml.debug
    build_image(
        Request(
            toml=toml,
            source=FromDockerfile(context=project.folder, builder="native"),
            output=project.eif,
            record=project.folder / "enclave.Dockerfile",
            kernels=project.folder / "kernels",
            now=dt.datetime.now(dt.UTC),
            tool_version="0",
            runtime=static_binaries.fixture("fixture-init").read_bytes(),
            is_cached=False,
        ),
        Silent(),
    )
    return project.eif.read_bytes()


def run_in_sandbox(contents: bytes, folder: pathlib.Path, *, is_checked: bool) -> Seen:
    """Runs an enclave until the witness has said everything, and drains it."""
    shutil.copy(static_binaries.launcher(), folder / "launcher")
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown("process: witness ")
        if is_checked:
            running.shown("healthcheck: witness ")
        console = ended(running)
    check = witness(console, "init: healthcheck: ") if is_checked else None
    return Seen(
        main=witness(console, "init: process: "),
        check=check,
        signal=signal_of(console, "init: process: "),
    )


def ended(running: Launched) -> str:
    """The console of an enclave that was asked to end."""
    running.process.terminate()
    running.event("exited")
    return running.shown("the enclave ends")


def witness(text: str, prefix: str) -> dict[str, Any]:
    """The first line of a witness; ``prefix`` stands before what it writes."""
    found = re.search(rf"^{re.escape(prefix)}witness (.*)$", text, re.MULTILINE)
    assert found is not None, text
    told: dict[str, Any] = json.loads(found[1])
    return told


def signal_of(text: str, prefix: str) -> int | None:
    """The signal that it was sent."""
    found = re.search(rf"^{re.escape(prefix)}signal ([0-9]+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


@contextlib.contextmanager
def short_folder() -> Iterator[pathlib.Path]:
    """Sockets need short paths, and another user must be able to enter."""
    with tempfile.TemporaryDirectory(prefix="runs-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        yield folder
