"""Making a platform from nothing: folder, store, team, service key, certificate, owner's token."""

import dataclasses
import json
import pathlib

from cloister.errors import ConfigError
from cloister.platform import database as databases
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.database import Database
from cloister.platform.master_key import KeyServices, key_service
from cloister.platform.owner import Owner
from cloister.platform.registry import Registry
from cloister.platform.server import configuration, tls
from cloister.platform.server.configuration import PlatformConfig
from cloister.platform.tokens import OWNER, Tokens
from cloister.replacing import replace


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new platform. ``owner_token`` is shown once."""

    owner_token: str = dataclasses.field(repr=False)
    app_uuid: str
    service_key: str
    ca_file: pathlib.Path | None


def make(
    config: PlatformConfig,
    text: str,
    *,
    app_name: str | None = None,
    clock: Clock = system,
    services: KeyServices = key_service,
) -> Made:
    """Makes the platform of a configuration.

    What is there stays: a store that was begun is completed, and keys are never replaced. Each call
    makes an owner's token, so that one that was lost can be replaced by who owns the folder.

    Args:
        config: What to make.
        text: The content of its ``platform.toml``.
        app_name: Name of the first app, or of one that is there; `default` when absent.
        clock: The time.
        services: Finds who wraps the master key.

    Raises:
        ConfigError: A name is not a DNS label, the master key's address is wrong, or there are apps
            and none of this name.
        OutputError: Something cannot be written.
        StoreError: There is a store of another class, or one that cannot be opened.
    """
    wraps = None if config.master_key == "file" else services(config.master_key)
    database = databases.create(
        config.folder,
        config.trust_class,
        now_ms=to_ms(clock()),
        url=config.database,
        wraps_key=wraps,
    )
    try:
        registry = Registry(database, clock)
        names = {one["name"] for one in Owner(database, clock).apps()}
        if names and app_name not in {None, *names}:
            raise ConfigError(
                "there is a platform, and no app of this name in it: nothing was made",
                hint="`cloister platform app create` adds one",
            )
        found = registry.sole_app()
        if found is None:
            team = registry.sole_team() or registry.add_team("owner")
            if not registry.service_public_keys(team):
                registry.add_service_key(team)
            found = (
                registry.first_app(team) or registry.add_app(team, app_name or DEFAULT_APP),
                team,
            )
        app_uuid, team = found
        if config.certificate is None:
            tls.make_authority(config.tls_folder, now=clock())
            tls.ensure_certificate(config.tls_folder, config.names, now=clock())
        settings = config.folder / configuration.FILE
        if not settings.exists():
            replace(settings, text.encode(), mode=0o600)
        token = Tokens(database, clock).create("owner", scopes=[OWNER])
        return Made(
            owner_token=token.secret,
            app_uuid=str(app_uuid),
            service_key=registry.service_public_keys(team)[0].hex(),
            ca_file=None if config.certificate else config.tls_folder / tls.CA_FILE,
        )
    finally:
        database.close()


def open_store(
    config: PlatformConfig, *, migrates: bool = False, services: KeyServices = key_service
) -> Database:
    """Opens the store of a platform.

    Raises:
        StoreError: See :func:`cloister.platform.database.open_existing`.
    """
    return databases.open_existing(
        config.folder,
        config.trust_class,
        url=config.database,
        migrates=migrates,
        services=services,
    )


def text_of(settings: dict[str, str | list[str] | int]) -> str:
    """Settings as ``platform.toml``: strings and lists of strings are written as JSON writes them.

    TOML's basic strings take every escape of JSON but surrogate pairs, which ASCII does not need.
    """
    lines = ["# A platform of Cloister; see docs/guide/platform.md.", ""]
    lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join([*lines, ""])


DEFAULT_APP = "default"
