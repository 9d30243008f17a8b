"""``cloister platform``: the owner's server, from nothing to a unit of systemd."""

import enum
import importlib
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli import _owner, _shown_once, _unit_text, output, settings
from cloister.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from cloister.platform.server.configuration import PlatformConfig

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="Its folder; default: platform in CLOISTER_HOME."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class StoreClass(enum.StrEnum):
    """Classes of a platform's store."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


def init(  # noqa: PLR0913 - an option is an argument
    *,
    directory: _Dir = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where it will listen; default: 127.0.0.1:8800."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="DNS name or address that clients use. Repeatable; default: that of --listen.",
        ),
    ] = None,
    app: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its first app; default: `default`.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="postgresql://…, `-`: from standard input; default: an SQLite file in its folder.",
        ),
    ] = None,
    master_key: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="`file`, which is the default, or kms:// and the ARN of a key in AWS KMS.",
        ),
    ] = None,
    certificate: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FILE", help="Certificate chain, PEM; default: an authority of its own."
        ),
    ] = None,
    key: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")
    ] = None,
    store_class: Annotated[
        StoreClass | None,
        typer.Option("--class", help="Development is for trying things out; default: production."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make a platform on this machine: folder, store, service key, certificate, owner's token.

    What is there stays, and keys are never replaced. The owner's token is printed once; calling it
    again makes another, unless an option says something else than platform.toml: then it is refused
    and makes nothing. The address of a database is written to platform.toml, mode 0600.

    Example:
      cloister platform init --name platform.example.com --listen 0.0.0.0:8800
    """
    if (certificate is None) != (key is None):
        raise UsageError("--certificate and --key come together")
    server = _server()
    env = settings.load()
    folder = (directory or env.platform).absolute()
    given: dict[str, Any] = {
        "class": None if store_class is None else store_class.value,
        "listen": listen,
        "names": name or None,
        "database_url": None if database_url is None else _database(database_url),
        "master_key": master_key,
        "certificate": None if certificate is None else str(certificate.absolute()),
        "key": None if key is None else str(key.absolute()),
    }
    given = {setting: value for setting, value in given.items() if value is not None}
    found = _with_defaults(given, development_root=env.dev_ca / "nsm-root.pem")
    config, text = server.configuration.read(found, folder), server.setup.text_of(found)
    is_there = (folder / server.configuration.FILE).exists()
    if is_there:
        asked, config, text = config, server.configuration.load(folder), ""
        _check_same(asked, config, given)
    made = server.setup.make(config, text, app_name=app)
    if is_there:
        output.note("another owner's token: those before it work until they are revoked")
    if config.trust_class.value == StoreClass.DEVELOPMENT.value:
        output.warn("a development platform: what it releases to proves nothing to anybody")
    url = _url(config)
    shown = {
        "dir": str(folder),
        "url": url,
        "class": config.trust_class.value,
        "ca_file": None if made.ca_file is None else str(made.ca_file),
        "app_uuid": made.app_uuid,
        "service_key": made.service_key,
        "token": made.owner_token,
    }
    with _shown_once.or_revoked("the owner's token", lambda: _revoke(folder, made.owner_token)):
        output.show(shown, as_json=as_json, text=_told(shown))


def serve(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """Run the server in the foreground.

    Requests are written to standard error, a line of JSON each: no client's address, no token.
    SIGTERM lets it answer what is in flight, for 10 seconds at most.

    Example:
      cloister platform serve
    """
    server = _server()
    folder = (directory or settings.load().platform).absolute()
    config = server.configuration.load(folder)
    server.serve.serve(
        config,
        is_ready=lambda url: output.show(
            {"url": url, "class": config.trust_class.value, "dir": str(folder)},
            as_json=as_json,
            text=f"The platform serves {url}, class {config.trust_class.value}.\n"
            "Ctrl-C drains and stops it.",
        ),
    )
    output.note("stopped")


def unit(
    *,
    directory: _Dir = None,
    user: Annotated[str, typer.Option(help="Who it runs as; owns its folder.")] = "cloister",
    as_json: _Json = False,
) -> None:
    """Print a unit for systemd that runs the server.

    Example:
      cloister platform unit --dir /var/lib/cloister/platform > cloister-platform.service
    """
    folder = (directory or settings.load().platform).absolute()
    serves = ["platform", "serve", "--dir", str(folder)]
    text = UNIT.format(
        command=_unit_text.own_command(serves), folder=_unit_text.quoted(str(folder)), user=user
    )
    output.show({"unit": text}, as_json=as_json, text=text.rstrip())


def _with_defaults(given: dict[str, Any], *, development_root: pathlib.Path) -> dict[str, Any]:
    """The settings of a new platform."""
    server = _server()
    listen = given.get("listen", server.configuration.DEFAULT_LISTEN)
    found = {
        "version": 1,
        "class": StoreClass.PRODUCTION.value,
        "listen": listen,
        "names": [server.configuration.listen_address(listen)[0]],
        "master_key": "file",
    } | given
    if found["class"] == StoreClass.DEVELOPMENT.value:
        found["development_root"] = str(development_root)
    return found


def _check_same(asked: "PlatformConfig", there: "PlatformConfig", given: dict[str, Any]) -> None:
    """Whether the options that were given say what platform.toml says.

    Raises:
        ConfigError: One says something else.
    """
    for setting in given:
        attribute, option = OPTIONS[setting]
        if getattr(asked, attribute) != getattr(there, attribute):
            raise ConfigError(
                f"there is a platform in `{there.folder}`, with another `{option}`: nothing was"
                " made",
                hint="platform.toml says what it is; without options `init` makes another owner's"
                " token",
            )


def _revoke(folder: pathlib.Path, token: str) -> None:
    """Ends a token of the platform in this folder."""
    with _owner.administered(folder) as owner:
        owner.revoke_token(token.split("_")[1])


def _database(text: str) -> str:
    """The address of a database; one with a password must not be on the command line."""
    from cloister.platform.engines import database_url, has_password  # noqa: PLC0415 - 200 ms

    if text == "-":
        return sys.stdin.readline().strip()
    if has_password(database_url(text)):
        raise UsageError(
            "a password on the command line is seen by other users and stays in the history",
            hint="`--database-url -` takes the address from standard input; libpq's passfile works",
        )
    return text


def _server() -> Any:  # noqa: ANN401 - a package with its parts
    """The server's modules, which need an extra.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        for part in ("configuration", "serve", "setup"):
            importlib.import_module(f"cloister.platform.server.{part}")
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.startswith("cloister"):
            raise
        raise ConfigError(
            f"the server needs `{problem.name}`, which is not installed",
            hint="pip install 'cloister[platform]'",
        ) from None
    return sys.modules["cloister.platform.server"]


def _url(config: "PlatformConfig") -> str:
    host = config.names[0]
    return f"https://{f'[{host}]' if ':' in host else host}:{config.listen[1]}"


def _told(shown: dict[str, Any]) -> str:
    lines = [
        f"A platform of class {shown['class']} is in {shown['dir']}.",
        "",
        "Its owner's token, shown once:",
        f"  {shown['token']}",
        "",
        "Start it:",
        f"  cloister platform serve --dir {shlex.quote(shown['dir'])}",
        "Then, for every other command:",
        f"  export CLOISTER_PLATFORM_URL={shown['url']} CLOISTER_API_KEY=cp_…",
    ]
    if shown["ca_file"] is not None:
        lines.append(f"  export CLOISTER_PLATFORM_CA={shlex.quote(shown['ca_file'])}")
    lines += ["", "Keep a copy of its master key apart from its backups."]
    return "\n".join(lines)


OPTIONS = {
    "class": ("trust_class", "--class"),
    "listen": ("listen", "--listen"),
    "names": ("names", "--name"),
    "database_url": ("database", "--database-url"),
    "master_key": ("master_key", "--master-key"),
    "certificate": ("certificate", "--certificate"),
    "key": ("key", "--key"),
}  # by setting of platform.toml: the field of PlatformConfig, and what it is called here
UNIT = """[Unit]
Description=Cloister platform
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
User={user}
UMask=0077
Restart=on-failure
RestartSec=2
TimeoutStopSec=20
KillMode=mixed
# For a port below 1024: AmbientCapabilities=CAP_NET_BIND_SERVICE, and in the line below as well.
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
LimitCORE=0
LimitNOFILE=8192

[Install]
WantedBy=multi-user.target
"""
