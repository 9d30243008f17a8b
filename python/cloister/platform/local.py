"""The development store: ``.cloister/dev/`` beside ``enclave.toml``, made by ``cloister init``.

One team, one app, its keys, and the enclaves of this folder, all of class development. Nothing in
it is worth anything outside this machine, and production code refuses to open it.
"""

import base64
import dataclasses
import json
import pathlib
from uuid import UUID

from sqlalchemy import select

from cloister.errors import OutputError, StoreError
from cloister.platform import app_keys
from cloister.platform import database as databases
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.database import Database
from cloister.platform.registry import Registry
from cloister.platform.tables import AppKey
from cloister.platform.trust_class import TrustClass
from cloister.replacing import replace


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LocalStore:
    """What ``enclave.toml`` needs of the store.

    Args:
        service_public_key: Ed25519, 32 bytes: goes into ``[trust] service_keys``.
        app_uuid: The one app.
        team_uuid: The one team.
        directory: Where the store is.
    """

    service_public_key: bytes
    app_uuid: UUID
    team_uuid: UUID
    directory: pathlib.Path


def init_store(
    directory: pathlib.Path,
    *,
    name: str,
    uuid: UUID | str,
    debug: bool = False,
    clock: Clock = system,
) -> LocalStore:
    """Makes the store, or completes the one that is there, and registers an enclave in it.

    Calling it again changes nothing that is there: keys are never replaced.

    Args:
        directory: Folder of ``enclave.toml``.
        name: Name of the enclave.
        uuid: Its uuid.
        debug: A debug enclave: zero PCRs are accepted when its parent is pinned.
        clock: Source of the times that are written.

    Raises:
        ConfigError: ``name`` is not a DNS label.
        OutputError: The store cannot be written.
        StoreError: There is a store of another class, or one that cannot be opened.
    """
    place = store_directory(directory)
    uuid = UUID(str(uuid))
    keep_out_of_repositories(place.parent)
    database = databases.create(place, TrustClass.DEVELOPMENT, now_ms=to_ms(clock()))
    try:
        registry = Registry(database, clock)
        found = registry.sole_app()
        if found is None:
            team_uuid = registry.add_team("local")
            found = registry.add_app(team_uuid, "local"), team_uuid
        app_uuid, team_uuid = found
        service_keys = registry.service_public_keys(team_uuid)
        public = service_keys[-1] if service_keys else registry.add_service_key(team_uuid)
        if registry.enclave(uuid) is None:
            registry.add_enclave(
                app_uuid,
                name,
                uuid=uuid,
                trust_class=TrustClass.DEVELOPMENT,
                accepts_debug=debug,
            )
    finally:
        database.close()
    return LocalStore(
        service_public_key=public, app_uuid=app_uuid, team_uuid=team_uuid, directory=place
    )


def open_store(directory: pathlib.Path) -> Database:
    """Opens the development store of the folder of an ``enclave.toml``; the caller closes it.

    Raises:
        StoreError: There is none, or it is not a development store.
    """
    return databases.open_existing(store_directory(directory), TrustClass.DEVELOPMENT)


def app_public_key(directory: pathlib.Path) -> bytes:
    """The newest public key of the app, compressed (SEC 1, 33 bytes).

    Raises:
        StoreError: There is no development store, or it has no app.
    """
    database = open_store(directory)
    try:
        return Registry(database).app_public_key(sole_app(database))
    finally:
        database.close()


def development_app_key_file(directory: pathlib.Path) -> str:
    """The newest key pair of the app as a file for ``cloister dev --app-key``.

    It is the one way a private half leaves a store, it exists for development stores alone, and
    it says so itself: ``{"class": "development", "curve": "P-256", "private": base64}``.

    Raises:
        StoreError: There is no development store, or it has no app.
    """
    database = open_store(directory)
    try:
        app_uuid = sole_app(database)
        with database.reading() as session:
            row = app_keys.newest(session, app_uuid)
        if row is None:
            raise StoreError("the app of the store has no key pair")
        private = database.vault.open(row.private_sealed, place=f"app_keys/{row.id}/private")
    finally:
        database.close()
    return json.dumps(
        {
            "class": TrustClass.DEVELOPMENT.value,
            "curve": row.curve,
            "private": base64.b64encode(private).decode(),
        }
    )


def app_private_keys(directory: pathlib.Path) -> list[tuple[str, bytes]]:
    """Curve and scalar of every key of the app, oldest first: what opens its ciphertexts here.

    They are for this process; :func:`development_app_key_file` is what leaves it.

    Raises:
        StoreError: There is no development store, or it has no app.
    """
    database = open_store(directory)
    try:
        app_uuid = sole_app(database)
        with database.reading() as session:
            rows = session.scalars(
                select(AppKey).where(AppKey.app_uuid == app_uuid).order_by(AppKey.position)
            ).all()
        return [
            (
                row.curve,
                database.vault.open(row.private_sealed, place=f"app_keys/{row.id}/private"),
            )
            for row in rows
        ]
    finally:
        database.close()


def sole_app(database: Database) -> UUID:
    """The one app of a local store.

    Raises:
        StoreError: There is none: making the store was interrupted.
    """
    found = Registry(database).sole_app()
    if found is None:
        raise StoreError(
            f"the store in `{database.directory}` has no app",
            hint="`cloister init NAME` completes it",
        )
    return found[0]


def keep_out_of_repositories(directory: pathlib.Path) -> None:
    """Makes ``.cloister/`` with a ``.gitignore`` that covers all of it, itself included.

    One that is there must have the line ``*``. Where it is missing, in a file that a full disk left
    empty or that somebody changed, it comes first again, and what else is there stays behind it.

    Raises:
        OutputError: The folder cannot be written.
    """
    ignore = directory / ".gitignore"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        before = ignore.read_bytes() if ignore.exists() else b""
    except OSError as problem:
        raise OutputError(f"cannot write `{directory}`: {problem.strerror}") from None
    if EVERYTHING not in before.splitlines():
        replace(ignore, EVERYTHING + b"\n" + before)


def store_directory(directory: pathlib.Path) -> pathlib.Path:
    """Where the development store of the folder of an ``enclave.toml`` is."""
    return directory / ".cloister" / "dev"


EVERYTHING = b"*"  # gitignore(5): any name in this folder and below
