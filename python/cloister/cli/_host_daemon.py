"""The parts of a host daemon, put together as host.toml says."""

import datetime as dt
import os
import pathlib
import shlex
import stat
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloister.cli import output, params
from cloister.cli._host_platform import CheckedPlatform
from cloister.cli._lines import Lines
from cloister.cli.settings import Settings
from cloister.config import HostToml
from cloister.errors import (
    ConfigError,
    KeyFileError,
    MissingInput,
    PermissionRefused,
    TransportError,
)
from cloister.platform.https import PlatformClient

if TYPE_CHECKING:
    from cloister.host.boot import Boot
    from cloister.host.daemon import HostDaemon, MakeBoot
    from cloister.host.images import Image
    from cloister.host.objects import ObjectStore
    from cloister.host.ports import EventSink
    from cloister.host.service import ServiceOptions


def make_daemon(config: HostToml, env: Settings, lines: Lines) -> "HostDaemon":
    """The daemon of a configuration.

    Raises:
        ConfigError: What it asks for is not for its class, or not in this version; or the token is
            not one for this host.
    """
    from cloister.host.daemon import DaemonOptions, HostDaemon  # noqa: PLC0415 - heavy
    from cloister.host.service import ServiceOptions  # noqa: PLC0415

    _check_class(config)
    token = read_token(config.beside(config.platform.token))
    authority = env.platform_ca
    if authority is None and config.platform.ca is not None:
        authority = config.beside(config.platform.ca)

    def connect() -> PlatformClient:
        return PlatformClient(config.platform.url or "", token, ca_file=authority)

    platform = CheckedPlatform(
        connect(),
        trust_class=config.trust_class,
        enclaves=[one.uuid for one in config.enclaves],
    )
    try:
        platform.check()
    except TransportError as problem:
        output.warn(f"{problem}; the token is looked at when it answers")
    return HostDaemon(
        DaemonOptions(
            services=[
                ServiceOptions(
                    enclave=one.uuid,
                    listen=f"tcp:{one.listen}",
                    cpus=one.cpus,
                    memory_bytes=one.memory,
                    max_connections=one.max_connections,
                    workers=one.workers,
                )
                for one in config.enclaves
            ],
            images=config.beside(config.images),
            state=config.beside(config.state),
            metrics_listen=config.metrics_listen,
        ),
        platform=platform,
        make_boot=_boots(config, env, connect, lines),
        say=lambda enclave, kind, message: lines.say(
            f"{enclave}: {kind}: {params.without_controls(message)}"
        ),
    )


def _boots(
    config: HostToml, env: Settings, connect: Callable[[], PlatformClient], lines: Lines
) -> "MakeBoot":
    """What makes a boot of an image: a connection of its own, the development root, the objects."""
    from cloister.host import DevelopmentCa  # noqa: PLC0415
    from cloister.host.boot import Boot, BootOptions  # noqa: PLC0415
    from cloister.host.boot_logs import BootLogs  # noqa: PLC0415
    from cloister.platform.clock import system  # noqa: PLC0415
    from cloister.platform.remote import RemotePlatform  # noqa: PLC0415
    from cloister.runners import SandboxRunner  # noqa: PLC0415

    authority = DevelopmentCa(env.dev_ca, now=system())
    objects = _objects(config)
    root = config.beside(config.state) / "logs"
    logs = {one.uuid: BootLogs(root / str(one.uuid)) for one in config.enclaves}

    def make(image: "Image", service: "ServiceOptions", events: "EventSink") -> "Boot":
        client, folder = connect(), logs[service.enclave].new()

        def closed() -> None:
            client.close()
            logs[service.enclave].release(folder)

        try:
            return Boot(
                BootOptions(
                    enclave=service.enclave,
                    image=image.path,
                    runtime=(env.runtime, pathlib.Path(tempfile.gettempdir())),
                    log_dir=folder,
                    objects=objects,
                    cpus=service.cpus,
                    memory_bytes=service.memory_bytes,
                    drain_ms=image.drain_ms,
                    start_timeout=dt.timedelta(milliseconds=config.start_timeout),
                    look_every=LOOK_EVERY,
                ),
                runner=lambda console: SandboxRunner(dev_ca_dir=env.dev_ca, console=console),
                platform=RemotePlatform(client),
                certificates=authority,
                events=events,
                console=lambda line: lines.detail(f"{service.enclave}: console: {line}"),
                end_waits=client.close,
                closed=closed,
            )
        except BaseException:
            closed()
            raise

    return make


def _objects(config: HostToml) -> "ObjectStore":
    if config.objects is None:
        from cloister.host.objects import DirectoryObjects  # noqa: PLC0415

        return DirectoryObjects(config.beside(config.state) / "objects")
    try:
        from cloister.host.s3_objects import S3Objects  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise ConfigError(
            f"`objects` in S3 needs `{problem.name}`, which is not installed",
            hint="pip install 'cloister[aws]'",
        ) from None
    bucket, _, prefix = config.objects.removeprefix("s3://").partition("/")
    return S3Objects(bucket, prefix=f"{prefix.rstrip('/')}/" if prefix else "")


def _check_class(config: HostToml) -> None:
    """Whether a class may have what the configuration asks for.

    Raises:
        ConfigError: It may not, or this version cannot.
    """
    if config.trust_class == "production":
        from cloister.host.production import require_production_state  # noqa: PLC0415

        if config.runner != NITRO:
            raise ConfigError(
                f"a host of class production runs enclaves with `nitro`, not `{config.runner}`:"
                " nobody can attest anything else",
                hint='class = "development" is for trying things out',
            )
        require_production_state(config.beside(config.state))
    if config.runner != SANDBOX:
        raise ConfigError(
            f"this version has no runner `{config.runner}`, whatever kernel is in the image",
            hint='runner = "sandbox", class = "development" runs the image on any Linux',
        )


def read_token(path: pathlib.Path) -> str:
    """A token from a file that others cannot read, or from standard input.

    Raises:
        MissingInput: There is no such file.
        KeyFileError: It holds no token.
        PermissionRefused: Others can read it.
    """
    if str(path) == "-":
        return sys.stdin.readline(MAX_TOKEN).strip()
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(MAX_TOKEN).strip()
    except UnicodeDecodeError:
        raise KeyFileError(f"`{path}` holds no token") from None
    except OSError as problem:
        raise MissingInput(
            f"the token `{path}` cannot be read: {problem.strerror}",
            hint="cloister platform token create --scope relay:UUID --name host-1 makes one",
        ) from None
    if mode & 0o077:
        raise PermissionRefused(
            f"`{path}` can be read by others", hint=f"chmod 600 {shlex.quote(str(path))}"
        )
    return text


SANDBOX, NITRO = "sandbox", "nitro"
MAX_TOKEN = 4096
LOOK_EVERY = dt.timedelta(seconds=5)
