"""``cloister init``: a new ``enclave.toml`` with all that a build needs beside it."""

import base64
import contextlib
import dataclasses
import datetime as dt
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import typer

from cloister.build import SigningPair
from cloister.build.new_pair import make_signing_pair
from cloister.cli import _begun_init, _new_toml, _owner, output, settings
from cloister.config import (
    Egress,
    EnclaveToml,
    Healthcheck,
    Scaling,
    Service,
    Signing,
    Trust,
    load,
    loads,
)
from cloister.config.rules import Violation, check
from cloister.errors import (
    CloisterError,
    ConfigError,
    MissingInput,
    OutputError,
    PermissionRefused,
    UsageError,
)
from cloister.platform import local
from cloister.platform.records import fresh_uuid
from cloister.replacing import replace


def init(  # noqa: PLR0913 - the options of the command
    name: Annotated[str, typer.Argument(metavar="NAME", help="DNS label of the enclave.")],
    *,
    egress: Annotated[bool, typer.Option("--egress", help="Let connections out.")] = False,
    egress_destinations: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST", help="Where to, separated by commas; turns egress on. Repeatable."
        ),
    ] = None,
    dockerfile: Annotated[
        str, typer.Option(metavar="FILE", help="The Dockerfile, relative to enclave.toml.")
    ] = "./Dockerfile",
    disable_tls_termination: Annotated[
        bool,
        typer.Option(
            "--disable-tls-termination",
            help="TLS ends in the application; API keys and logs go off with it.",
        ),
    ] = False,
    disable_api_key_auth: Annotated[
        bool, typer.Option("--disable-api-key-auth", help="Requests need no API key.")
    ] = False,
    disable_trx_logging: Annotated[
        bool, typer.Option("--disable-trx-logging", help="Write no transaction logs.")
    ] = False,
    trusted_headers: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Headers whose values are logged. Repeatable."),
    ] = None,
    healthcheck: Annotated[
        str | None, typer.Option(metavar="PATH", help="Asked every second; 2xx is healthy.")
    ] = None,
    healthcheck_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Asked there; default: the service port.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Port of the application; default: its EXPOSE or 8008."),
    ] = None,
    replicas: Annotated[int, typer.Option(metavar="N", help="How many enclaves run.")] = 2,
    debug: Annotated[
        bool, typer.Option("--debug", help="A debug enclave: open console, zero PCRs.")
    ] = False,
    signing_cert: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="P-384 certificate, PEM; default: a new pair."),
    ] = None,
    private_key: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")
    ] = None,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The file to write.")
    ] = pathlib.Path("enclave.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it; keys are kept.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write enclave.toml, a signing pair and app keys, and register the enclave.

    Keys go into .cloister/ beside the file, which keeps itself out of repositories and images; a
    key that is there is never replaced. Everything is checked before anything is written, and the
    enclave is registered last; after a failure the same command goes on with the same enclave.

    Example:
      cloister init hello
      cloister init hello --egress-destinations api.example.com:443 --healthcheck /health
    """
    if (signing_cert is None) != (private_key is None):
        raise UsageError("--signing-cert and --private-key come together")
    if healthcheck_port is not None and healthcheck is None:
        raise UsageError("--healthcheck-port needs --healthcheck")
    destinations = _listed(egress_destinations)
    passthrough = disable_tls_termination
    asked: dict[str, Any] = {
        "name": name,
        "debug": debug,
        "dockerfile": dockerfile,
        "api_key_auth": not (disable_api_key_auth or passthrough),
        "trx_logging": not (disable_trx_logging or passthrough),
        "tls_termination": not passthrough,
        "trusted_headers": _listed(trusted_headers),
    }
    tables: dict[str, tuple[Any, dict[str, Any]]] = {
        "healthcheck": (Healthcheck, {"path": healthcheck, "port": healthcheck_port}),
        "egress": (Egress, {"enabled": True, "destinations": destinations or ("*",)}),
        "service": (Service, {"port": port}),
        "scaling": (Scaling, {"desired_replicas": replicas}),
    }
    absent = {"healthcheck"} if healthcheck is None else set()
    absent |= set() if egress or destinations else {"egress"}
    now = dt.datetime.now(dt.UTC)
    toml = _checked(asked, {key: value for key, value in tables.items() if key not in absent})
    before = _existing(config, toml, is_forced=force)
    pair = _pair(config, signing_cert, private_key, now)
    folder = config.parent
    # A registration comes last of what can fail and be seen elsewhere, and its uuid is noted first.
    local.keep_out_of_repositories(folder / ".cloister")
    uuid = before or _begun_init.uuid_of(folder, toml) or fresh_uuid()
    if signing_cert is None and not pair[0].exists():
        make_signing_pair(*pair, name=name, now=now)
    if before is None:
        _begun_init.note(folder, toml, uuid)
    store = _registered(folder, name, uuid, debug=debug)
    replace(config, _whole(toml, config, uuid, store, pair).encode())
    _begun_init.forget(folder)
    if passthrough:
        output.note("without TLS termination the enclave reads nothing: API keys and logs are off")
    if debug:
        output.warn("a debug enclave: its PCRs are zero and its console is open")
    output.note("next: cloister build")
    output.show(_shown(load(config), pair), as_json=as_json)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Registered:
    """What enclave.toml says of the store that the enclave is in."""

    app_uuid: UUID
    team_uuid: UUID
    service_keys: tuple[bytes, ...]


def _registered(folder: pathlib.Path, name: str, uuid: UUID, *, debug: bool) -> _Registered:
    """Registers the enclave: with the platform that the environment names, else locally."""
    if settings.load().platform_url is None:
        with _nothing_begun(folder):
            store = local.init_store(folder, name=name, uuid=uuid, debug=debug)
        return _Registered(
            app_uuid=store.app_uuid,
            team_uuid=store.team_uuid,
            service_keys=(store.service_public_key,),
        )
    with _owner.opened(folder) as owner:
        try:
            found = owner.enclave(uuid)
        except (MissingInput, PermissionRefused):
            app = _owner.app_of(owner, folder / "no.toml")
            with _nothing_begun(folder):
                found = owner.add_enclave(app, name, uuid=uuid, debug=debug)
    output.note(f"`{name}` is registered with the platform, as {uuid}")
    return _Registered(
        app_uuid=UUID(found["app_uuid"]),
        team_uuid=UUID(found["team_uuid"]),
        service_keys=tuple(bytes.fromhex(key) for key in found["service_keys"][:MAX_SERVICE_KEYS]),
    )


@contextlib.contextmanager
def _nothing_begun(folder: pathlib.Path) -> Iterator[None]:
    """Forgets what was begun when its registration is refused: there is nothing to go on with."""
    try:
        yield
    except ConfigError:
        _begun_init.forget(folder)
        raise


def _checked(values: dict[str, Any], tables: dict[str, tuple[Any, dict[str, Any]]]) -> EnclaveToml:
    """The settings of the command line; what is wrong with one is an error in the usage."""
    option = ""
    try:
        for option, (table, inner) in tables.items():
            values[option] = table(**inner)
        option = ""
        toml = EnclaveToml(**values)
        check(toml)
    except ConfigError as problem:
        where = f"{option}: " if option else ""
        raise UsageError(f"{where}{problem.message}", hint=problem.hint) from None
    except Violation as problem:
        raise UsageError(problem.message, hint=problem.hint) from None
    return toml


def _existing(config: pathlib.Path, toml: EnclaveToml, *, is_forced: bool) -> UUID | None:
    """The uuid of the enclave that is there already, when it is overwritten by the same one.

    Another name is another enclave, and so is a debug enclave: their uuids differ.
    """
    if not config.parent.is_dir():
        raise OutputError(f"cannot write `{config}`: `{config.parent}` is not a folder")
    if not config.exists():
        return None
    if not is_forced:
        raise OutputError(f"`{config}` exists", hint="--force overwrites it; keys are kept")
    try:
        found = load(config)
    except CloisterError:
        return None
    return found.uuid if (found.name, found.debug) == (toml.name, toml.debug) else None


def _pair(
    config: pathlib.Path,
    certificate: pathlib.Path | None,
    key: pathlib.Path | None,
    now: dt.datetime,
) -> tuple[pathlib.Path, pathlib.Path]:
    """The paths of the signing pair; one that is there is checked."""
    folder = config.parent / ".cloister" / "signing"
    pair = (certificate or folder / "cert.pem", key or folder / "key.pem")
    if certificate is not None or any(path.exists() for path in pair):
        SigningPair.load(*pair, now=now)
    return pair


def _whole(
    toml: EnclaveToml,
    config: pathlib.Path,
    uuid: UUID,
    store: _Registered,
    pair: tuple[pathlib.Path, pathlib.Path],
) -> str:
    """The text of the file, read back before it is written."""
    certificate, key = (_relative(path, config.parent) for path in pair)
    service_keys = tuple(base64.b64encode(key).decode() for key in store.service_keys)
    text = _new_toml.text(
        dataclasses.replace(
            toml,
            uuid=uuid,
            app_uuid=store.app_uuid,
            team_uuid=store.team_uuid,
            trust=Trust(service_keys=service_keys),
            signing=Signing(cert_path=certificate, key_path=key),
        )
    )
    loads(text, path=config)
    return text


def _relative(path: pathlib.Path, folder: pathlib.Path) -> str:
    """As it is written in the file: relative when it is below the file's folder."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _listed(given: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for text in given or [] for part in text.split(",") if part.strip())


def _shown(toml: EnclaveToml, pair: tuple[pathlib.Path, pathlib.Path]) -> dict[str, Any]:
    return {
        "config": str(toml.path),
        "name": toml.name,
        "uuid": str(toml.uuid),
        "app_uuid": str(toml.app_uuid),
        "team_uuid": str(toml.team_uuid),
        "signing_cert": str(pair[0]),
        "signing_key": str(pair[1]),
    }


MAX_SERVICE_KEYS = 3  # wire.md §3
