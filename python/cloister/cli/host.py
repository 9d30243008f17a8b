"""``cloister host``: the daemon that keeps enclaves running on a machine nobody has to trust."""

import dataclasses
import datetime as dt
import enum
import json
import pathlib
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister import config as configuration
from cloister.cli import _unit_text, output, params, settings
from cloister.cli._host_platform import CheckedPlatform, relayed, token_of
from cloister.cli.settings import Settings
from cloister.config import HostToml
from cloister.errors import (
    ConfigError,
    KeyFileError,
    MissingInput,
    OutputError,
    TransportError,
    UsageError,
)
from cloister.platform.https import PlatformClient
from cloister.replacing import replace

if TYPE_CHECKING:
    from cloister.host.boot import Boot
    from cloister.host.daemon import HostDaemon
    from cloister.host.images import Image
    from cloister.host.objects import ObjectStore
    from cloister.host.ports import EventSink
    from cloister.host.service import ServiceOptions

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="Its folder; default: host in CLOISTER_HOME."),
]
_Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The platform; default: CLOISTER_PLATFORM_URL, host.toml."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class RunnerOfHost(enum.StrEnum):
    """Ways to run an enclave."""

    SANDBOX = "sandbox"
    QEMU = "qemu"
    NITRO = "nitro"


def init(  # noqa: PLR0913 - an option is an argument
    *,
    token: Annotated[
        pathlib.Path,
        typer.Option(metavar="FILE", help="A token of scope relay; - is standard input."),
    ],
    listen: Annotated[
        list[str],
        typer.Option(
            metavar="[UUID=]HOST:PORT",
            help="Where clients of an enclave connect. Repeatable; UUID= when there are several.",
        ),
    ],
    directory: _Dir = None,
    platform_url: _Url = None,
    runner: Annotated[
        RunnerOfHost | None,
        typer.Option(help="How enclaves are run; default: nitro, sandbox for class development."),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where /metrics and /health are served."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make a host on this machine: folder, host.toml, token, the platform's authority.

    The platform is asked what the token carries for; one that may do more than a host has to is
    refused. Nothing is replaced.

    Example:
      cloister host init --token host-1 --listen 0.0.0.0:443
    """
    env = settings.load()
    folder = (directory or _default_folder(env)).absolute()
    path = folder / FILE
    if path.exists():
        raise ConfigError(f"`{path}` is there already", hint="edit it, or name another --dir")
    url = platform_url or env.platform_url
    if url is None:
        raise ConfigError(
            "no platform is named", hint="--platform-url or CLOISTER_PLATFORM_URL is its address"
        )
    shown_token = _read_token(token)
    client = PlatformClient(url, shown_token, ca_file=env.platform_ca)
    try:
        me = token_of(client)
    finally:
        client.close()
    listens = _listens(listen, [str(one) for one in relayed(me)])
    trust_class = me["trust_class"]
    default = RunnerOfHost.NITRO if trust_class == "production" else RunnerOfHost.SANDBOX
    text = _text_of(
        {
            "version": configuration.host.VERSION,
            "class": trust_class,
            "runner": (runner or default).value,
            "metrics_listen": metrics_listen,
        },
        {"url": url, "ca": None if env.platform_ca is None else CA_FILE, "token": TOKEN_FILE},
        listens,
    )
    config = configuration.loads_host(text, path=path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.beside(config.images).mkdir(exist_ok=True)
        authority = None if env.platform_ca is None else env.platform_ca.read_bytes()
    except OSError as problem:
        raise OutputError(f"`{problem.filename}` cannot be used: {problem.strerror}") from None
    replace(folder / TOKEN_FILE, f"{shown_token}\n".encode(), mode=0o600)
    if authority is not None:
        replace(folder / CA_FILE, authority, mode=0o644)
    replace(path, text.encode(), mode=0o644)
    images = config.beside(config.images)
    shown = {
        "dir": str(folder),
        "config": str(path),
        "images": str(images),
        "class": trust_class,
        "runner": config.runner,
        "enclaves": [{"uuid": uuid, "listen": address} for uuid, address in listens.items()],
    }
    lines = [
        f"A host of class {trust_class} is in {folder}.",
        f"Copy images, *.eif, to {images}; it runs what the platform has as deployed.",
        f"  cloister host serve --dir {shlex.quote(str(folder))}",
    ]
    output.show(shown, as_json=as_json, text="\n".join(lines))


def serve(*, directory: _Dir = None, platform_url: _Url = None, as_json: _Json = False) -> None:
    """Run the enclaves of host.toml, each with the image that is deployed.

    A new deployment whose image is here is started beside the one that runs, and takes over when it
    is ready. SIGHUP starts every enclave anew in this way, which applies changed variables. SIGTERM
    and Ctrl-C let enclaves finish what is in flight; a second one ends them at once.

    Example:
      cloister host serve --platform-url https://platform.example.com:8800
    """
    env = settings.load()
    folder = (directory or _default_folder(env)).absolute()
    config = configuration.load_host(folder / FILE)
    url = platform_url or env.platform_url or config.platform.url
    if url is None:
        raise ConfigError(
            "no platform is named",
            hint="--platform-url, CLOISTER_PLATFORM_URL, or `[platform]"
            " url` of host.toml is its address",
        )
    config = dataclasses.replace(config, platform=dataclasses.replace(config.platform, url=url))
    daemon = _daemon(config, env)
    asked = _Asked(daemon)
    with daemon:
        shown = {
            "dir": str(folder),
            "url": url,
            "class": config.trust_class,
            "runner": config.runner,
            "images": str(config.beside(config.images)),
            "metrics": daemon.metrics_address,
            "enclaves": [{"uuid": str(one.uuid), "listen": one.listen} for one in config.enclaves],
        }
        count = "1 enclave" if len(config.enclaves) == 1 else f"{len(config.enclaves)} enclaves"
        text = f"{count}, asking {url} what is to run.\nCtrl-C drains and stops."
        output.show(shown, as_json=as_json, text=text)
        while not asked.to_stop.wait(WAIT_SECONDS):
            pass
        output.note("stopping: no new clients, what is in flight may finish")
    output.note("stopped")


def unit(
    *,
    directory: _Dir = None,
    user: Annotated[str, typer.Option(help="Who it runs as; owns its folder.")] = "cloister-host",
    as_json: _Json = False,
) -> None:
    """Print a unit for systemd that runs the host.

    Example:
      cloister host unit --dir /var/lib/cloister/host > cloister-host.service
    """
    folder = (directory or _default_folder(settings.load())).absolute()
    program = shutil.which(sys.argv[0]) or shutil.which("cloister") or "/usr/local/bin/cloister"
    serves = [str(pathlib.Path(program).absolute()), "host", "serve", "--dir", str(folder)]
    text = UNIT.format(
        command=_unit_text.command_line(serves), folder=_unit_text.quoted(str(folder)), user=user
    )
    output.show({"unit": text}, as_json=as_json, text=text.rstrip())


class _Asked:
    """What signals ask for: the first one a drain, the second an end at once, SIGHUP new boots."""

    def __init__(self, daemon: "HostDaemon") -> None:
        self.to_stop = threading.Event()
        self._daemon = daemon
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._restart)

    def _stop(self, *_: object) -> None:
        if self.to_stop.is_set():
            self._daemon.kill()
        self.to_stop.set()

    def _restart(self, *_: object) -> None:
        self._daemon.restart()


def _daemon(config: HostToml, env: Settings) -> "HostDaemon":
    """The daemon of a configuration.

    Raises:
        ConfigError: What it asks for is not for its class, or not in this version; or the token is
            not one for this host.
    """
    from cloister.host.daemon import DaemonOptions, HostDaemon  # noqa: PLC0415 - heavy
    from cloister.host.service import ServiceOptions  # noqa: PLC0415

    _check_class(config)
    token = _read_token(config.beside(config.platform.token))
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
        make_boot=_boots(config, env, connect),
        say=lambda enclave, kind, message: output.note(
            f"{enclave}: {kind}: {params.without_controls(message)}"
        ),
    )


def _boots(config: HostToml, env: Settings, connect: Any) -> Any:  # noqa: ANN401 - functions
    """What makes a boot of an image: a connection of its own, the development root, the objects."""
    from cloister.host import DevelopmentCa, boot_logs  # noqa: PLC0415
    from cloister.host.boot import Boot, BootOptions  # noqa: PLC0415
    from cloister.platform.clock import system  # noqa: PLC0415
    from cloister.platform.remote import RemotePlatform  # noqa: PLC0415
    from cloister.runners import SandboxRunner  # noqa: PLC0415

    authority = DevelopmentCa(env.dev_ca, now=system())
    objects, logs = _objects(config), config.beside(config.state) / "logs"

    def make(image: "Image", service: "ServiceOptions", events: "EventSink") -> "Boot":
        client = connect()
        return Boot(
            BootOptions(
                enclave=service.enclave,
                image=image.path,
                runtime=(env.runtime, pathlib.Path(tempfile.gettempdir())),
                log_dir=boot_logs.new_folder(logs / str(service.enclave), now=system()),
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
            console=lambda line: output.detail(f"console: {line}"),
            end_waits=client.close,
        )

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

        if config.runner != RunnerOfHost.NITRO:
            raise ConfigError(
                f"a host of class production runs enclaves with `nitro`, not `{config.runner}`:"
                " nobody can attest anything else",
                hint='class = "development" is for trying things out',
            )
        require_production_state(config.beside(config.state))
    if config.runner != RunnerOfHost.SANDBOX:
        raise ConfigError(
            f"this version has no runner `{config.runner}`, whatever kernel is in the image",
            hint='runner = "sandbox", class = "development" runs the image on any Linux',
        )


def _read_token(path: pathlib.Path) -> str:
    """A token from a file that others cannot read, or from standard input.

    Raises:
        MissingInput: There is no such file.
        KeyFileError: Others can read it, or it holds no token.
    """
    if str(path) == "-":
        return sys.stdin.readline(MAX_TOKEN).strip()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open(encoding="ascii") as file:
            text = file.read(MAX_TOKEN).strip()
    except UnicodeDecodeError:
        raise KeyFileError(f"`{path}` holds no token") from None
    except OSError as problem:
        raise MissingInput(
            f"the token `{path}` cannot be read: {problem.strerror}",
            hint="cloister platform token create --scope relay:UUID --name host-1 makes one",
        ) from None
    if mode & 0o077:
        raise KeyFileError(
            f"`{path}` can be read by others", hint=f"chmod 600 {shlex.quote(str(path))}"
        )
    return text


def _listens(given: list[str], carried: list[str]) -> dict[str, str]:
    """Where each enclave listens.

    Raises:
        UsageError: An address is none, or it is not clear for which enclave it is.
    """
    found: dict[str, str] = {}
    for one in given:
        uuid, equals, address = one.rpartition("=")
        if not equals and len(carried) != 1:
            raise UsageError(
                f"the token carries for {len(carried)} enclaves: expected --listen UUID=HOST:PORT"
            )
        uuid = uuid.lower() if equals else carried[0]
        if uuid not in carried or uuid in found:
            raise UsageError(
                f"--listen: {params.printable(uuid)} is not an enclave of the token, or stands"
                " there twice",
                hint=f"the token carries for {', '.join(carried)}",
            )
        found[uuid] = params.listen_address(address)
    return found


def _text_of(top: dict[str, Any], platform: dict[str, Any], listens: dict[str, str]) -> str:
    """``host.toml``. TOML's basic strings take every escape that JSON needs for ASCII."""

    def pairs(values: dict[str, Any]) -> list[str]:
        return [
            f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None
        ]

    lines = ["# A host of Cloister; host.toml.example says what each setting means.", ""]
    lines += [*pairs(top), "", "[platform]", *pairs(platform)]
    for uuid, address in listens.items():
        lines += ["", "[[enclave]]", *pairs({"uuid": uuid, "listen": address})]
    return "\n".join([*lines, ""])


def _default_folder(env: Settings) -> pathlib.Path:
    return env.home / "host"


FILE = "host.toml"
TOKEN_FILE = "token"  # noqa: S105 - the name of a file
CA_FILE = "platform-ca.pem"
MAX_TOKEN = 4096
WAIT_SECONDS = 0.25
LOOK_EVERY = dt.timedelta(seconds=5)

UNIT = """[Unit]
Description=Cloister host
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
User={user}
UMask=0077
Restart=on-failure
RestartSec=2
# Above `[limits] drain_timeout` of every image.
TimeoutStopSec=90
KillMode=mixed
# For a port below 1024.
AmbientCapabilities=CAP_NET_BIND_SERVICE
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
LimitCORE=0
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""
