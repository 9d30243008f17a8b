"""Whose registry a command works on: the platform that the environment names, else the local store.

With ``CLOISTER_PLATFORM_URL`` the command asks that server, with the token in ``CLOISTER_API_KEY``;
else it opens the development store beside ``enclave.toml``. Commands see no difference.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from uuid import UUID

from cloister import attest
from cloister import config as configuration
from cloister.cli import output, settings
from cloister.cli.settings import Settings
from cloister.errors import ConfigError, MissingInput, UsageError
from cloister.platform.https import ABSENCE_SECONDS, PlatformClient
from cloister.platform.owner import Owner
from cloister.platform.remote_owner import RemoteOwner

AnyOwner = Owner | RemoteOwner


def client(env: Settings) -> PlatformClient:
    """A connection to the platform of the environment.

    Raises:
        ConfigError: It names none, or no token.
    """
    if env.platform_url is None:
        raise ConfigError(
            "no platform is named", hint="CLOISTER_PLATFORM_URL is its address, https://HOST:PORT"
        )
    return PlatformClient(
        env.platform_url,
        env.api_key or "",
        ca_file=env.platform_ca,
        absence_s=ABSENCE_SECONDS,
    )


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[AnyOwner]:
    """The owner's calls of the platform, or of the local store of a folder."""
    env = settings.load()
    if env.platform_url is not None:
        connection = client(env)
        output.detail(f"asking the platform {connection.url}")
        try:
            yield RemoteOwner(connection)
        finally:
            connection.close()
        return
    from cloister.platform import local  # noqa: PLC0415 - a remote platform needs no database

    database = local.open_store(folder)
    try:
        yield Owner(database)
    finally:
        database.close()


@contextlib.contextmanager
def administered(folder: pathlib.Path | None) -> Iterator[AnyOwner]:
    """The owner's calls of the platform: in its own folder, or through the server."""
    if folder is None:
        connection = client(settings.load())
        try:
            yield RemoteOwner(connection)
        finally:
            connection.close()
        return
    from cloister.platform.server import configuration as server_configuration  # noqa: PLC0415
    from cloister.platform.server import setup  # noqa: PLC0415

    database = setup.open_store(server_configuration.load(folder))
    try:
        yield Owner(database)
    finally:
        database.close()


def app_of(owner: AnyOwner, config: pathlib.Path) -> UUID:
    """The app that a command is about: of enclave.toml, of ``EV_APP_UUID``, or the only one.

    Raises:
        UsageError: There is more than one.
    """
    given = settings.load().app_uuid
    if given is not None:
        try:
            return UUID(given)
        except ValueError:
            raise ConfigError("EV_APP_UUID is not a uuid") from None
    if config.is_file():
        found = configuration.load(config).app_uuid
        if found is not None:
            return found
    apps = owner.apps()
    if len(apps) != 1:
        raise UsageError(
            f"there are {len(apps)} apps to choose from",
            hint="EV_APP_UUID names one, or `app_uuid` of the enclave.toml of --config",
        )
    return UUID(apps[0]["uuid"])


def deployed(name: str, config: pathlib.Path) -> list[attest.Measurements]:
    """What the images of an enclave measure that are deployed now: the registers of code.

    Args:
        name: Name or uuid of the enclave.
        config: The enclave.toml, whose folder has the local store and which may name the app.

    Raises:
        MissingInput: There is no such enclave, or no image of it is deployed.
        UsageError: Several enclaves of the app have this name.
    """
    with opened(config.parent) as owner:
        uuid = named(owner, name, config)
        found = [one["pcrs"] for one in owner.deployments(uuid) if one["active"]]
    if not found:
        raise MissingInput(
            f"no image of the enclave `{name}` is deployed",
            hint="`cloister list deployments` shows which were",
        )
    measured = [pcrs for pcrs in found if any(bytes.fromhex(pcrs["0"]))]
    if not measured:
        raise UsageError(
            f"the enclave `{name}` runs in debug mode: its registers are zero and prove nothing",
            hint="--dangerous-accept-debug and --dangerous-any-measurement, without --enclave",
        )
    return [
        attest.Measurements(
            {int(index): value for index, value in pcrs.items() if int(index) in attest.IDENTIFYING}
        )
        for pcrs in measured
    ]


def named(owner: AnyOwner, name: str, config: pathlib.Path) -> UUID:
    """The enclave of this name or uuid, in the app of the command.

    Raises:
        MissingInput: There is none of this name.
        UsageError: There are several.
    """
    with contextlib.suppress(ValueError):
        return UUID(name)
    named = [one for one in owner.enclaves(app_of(owner, config)) if one["name"] == name]
    if not named:
        raise MissingInput(
            f"there is no enclave `{name}`", hint="`cloister list enclaves` shows those of the app"
        )
    if len(named) > 1:
        raise UsageError(
            f"{len(named)} enclaves are named `{name}`", hint="use the uuid of one of them"
        )
    return UUID(named[0]["uuid"])


def enclave_of(config: pathlib.Path) -> UUID:
    """The enclave of an enclave.toml.

    Raises:
        ConfigError: It has no uuid.
    """
    found = configuration.load(config).uuid
    if found is None:
        raise ConfigError(
            f"`{config}` has no `uuid`", hint="`cloister init NAME` registers the enclave"
        )
    return found
