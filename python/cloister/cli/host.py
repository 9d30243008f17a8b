"""``cloister host``: the daemon that keeps enclaves running on a machine nobody has to trust."""

import contextlib
import dataclasses
import enum
import pathlib
import shlex
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from cloister import config as configuration
from cloister.cli import _host_daemon, _new_host_toml, _unit_text, output, settings
from cloister.cli._host_platform import relayed, token_of
from cloister.cli._lines import Lines
from cloister.cli.settings import Settings
from cloister.errors import ConfigError, OutputError
from cloister.platform.https import ABSENCE_SECONDS, PlatformClient
from cloister.replacing import replace

if TYPE_CHECKING:
    from cloister.host.daemon import HostDaemon

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
    refused. No file is replaced.

    Example:
      cloister host init --token host-1 --listen 0.0.0.0:443
    """
    env = settings.load()
    folder = (directory or _default_folder(env)).absolute()
    path = folder / FILE
    for one in (path, folder / TOKEN_FILE, folder / CA_FILE):
        if one.exists():
            raise ConfigError(f"`{one}` is there already", hint="edit it, or name another --dir")
    url = platform_url or env.platform_url
    if url is None:
        raise ConfigError(
            "no platform is named", hint="--platform-url or CLOISTER_PLATFORM_URL is its address"
        )
    shown_token = _host_daemon.read_token(token)
    client = PlatformClient(url, shown_token, ca_file=env.platform_ca, absence_s=ABSENCE_SECONDS)
    try:
        me = token_of(client)
    finally:
        client.close()
    listens = _new_host_toml.listens(listen, [str(one) for one in relayed(me)])
    trust_class = me["trust_class"]
    default = RunnerOfHost.NITRO if trust_class == "production" else RunnerOfHost.SANDBOX
    text = _new_host_toml.text_of(
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
    files = {folder / TOKEN_FILE: (f"{shown_token}\n".encode(), 0o600)}
    if authority is not None:
        files[folder / CA_FILE] = (authority, 0o644)
    _write_all(files | {path: (text.encode(), 0o644)})
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
    # A reload that comes before there is something to restart must not end the host.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
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
    lines = Lines()
    daemon = _host_daemon.make_daemon(config, env, lines)
    # Threads inherit the mask, so signals come to the waits below alone, and no handler runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    daemon.start()
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
    try:
        text = f"{count}, asking {url} what is to run.\nCtrl-C drains and stops."
        output.show(shown, as_json=as_json, text=text)
        while signal.sigwait(SIGNALS) == signal.SIGHUP:
            daemon.restart()
        lines.say("stopping: no new clients, what is in flight may finish")
    finally:
        _stop(daemon)
    lines.say("stopped")
    lines.end()


def _write_all(files: dict[pathlib.Path, tuple[bytes, int]]) -> None:
    """Writes new files with their modes, all or none, so that a failed start can be repeated.

    Raises:
        OutputError: One cannot be written; none is left.
    """
    with contextlib.ExitStack() as undo:
        for path, (content, mode) in files.items():
            replace(path, content, mode=mode)
            undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()


def _stop(daemon: "HostDaemon") -> None:
    """Drains, until another signal asks for an end at once."""
    stopping = threading.Thread(target=daemon.stop, name="stop")
    stopping.start()
    while stopping.is_alive():
        if signal.sigtimedwait(SIGNALS - {signal.SIGHUP}, WAIT_SECONDS) is not None:
            daemon.kill()
    stopping.join()


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
    serves = ["host", "serve", "--dir", str(folder)]
    text = UNIT.format(
        command=_unit_text.own_command(serves),
        folder=_unit_text.quoted(str(folder)),
        home=_unit_text.quoted(f"CLOISTER_HOME={folder / 'home'}"),
        user=user,
    )
    output.show({"unit": text}, as_json=as_json, text=text.rstrip())


def _default_folder(env: Settings) -> pathlib.Path:
    return env.home / "host"


FILE = "host.toml"
TOKEN_FILE = "token"  # noqa: S105 - the name of a file
CA_FILE = "platform-ca.pem"
SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
WAIT_SECONDS = 0.25

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
# Roots of class development lie below the folder too.
Environment={home}
Restart=on-failure
RestartSec=2
# A configuration that is refused once is refused again.
RestartPreventExitStatus=65 66 78
# Above twice the longest `[limits] drain_timeout` that an image can have.
TimeoutStopSec=7800
KillMode=mixed
# For a port below 1024.
AmbientCapabilities=CAP_NET_BIND_SERVICE
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
LimitCORE=0
LimitNOFILE=65536
# The sandbox makes namespaces with a /proc of their own: what covers parts of /proc, forbids
# namespaces or implies NoNewPrivileges (systemd.exec(5)) keeps enclaves from starting.

[Install]
WantedBy=multi-user.target
"""
