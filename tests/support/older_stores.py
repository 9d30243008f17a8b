"""Stores of earlier schemas, made by the migrations up to them, with rows in every table.

The rows are what a platform of the newest schema wrote, without the columns and tables that the
earlier one lacks: migrations have only added. They go in by the newest models, so what reads and
writes earlier schemas in the product is not used to make what it is tested with.

As a program it writes the backups of ``tests/vectors/platform``::

    python -m tests.support.older_stores tests/vectors/platform
"""

import hashlib
import json
import pathlib
import shutil
import sys
import tempfile

import pytest
from sqlalchemy import Engine, Table, func, insert, inspect, select, update
from tests.support.guide import ROOT
from tests.support.object_heads import image_of, name_of, proof_of
from tests.support.platform_world import PCRS, World, make_world

from cloister.errors import ReleaseRefused
from cloister.platform import backup, engines, migrations
from cloister.platform import database as databases
from cloister.platform.clock import to_ms
from cloister.platform.tables import Base, EnclaveSigner, StoreRow
from cloister.platform.tokens import Tokens
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables

VECTORS = ROOT / "tests" / "vectors" / "platform"
FACTS: dict[str, str] = json.loads((VECTORS / "backups.json").read_text())
RAW = bytes(range(1, 256))
SCHEMAS = tuple(range(1, databases.SCHEMA_VERSION + 1))


def vector(schema: int) -> pathlib.Path:
    """A backup of a store of this schema, as it was written once."""
    return VECTORS / f"backup_schema_{schema}"


def folder_of_vectors(folder: pathlib.Path) -> pathlib.Path:
    """A folder with the master key of the vectors, without a store."""
    folder.mkdir(mode=0o700)
    key = folder / databases.MASTER_KEY_FILE
    key.touch(mode=0o600)
    key.write_bytes(bytes.fromhex(FACTS["master_key"]))
    return folder


def filled(directory: pathlib.Path) -> tuple[World, str]:
    """A world with rows in every table, and an API key that works in it."""
    world = make_world(directory)
    key = world.keys.create("client", scopes=["app"])
    world.keys.revoke(world.keys.create("revoked", scopes=["app"]).record.id)
    Variables(world.database, world.uuid, world.clock).set("RAW", RAW, secret=False)
    Tokens(world.database, world.clock).create("host", scopes=[f"relay:{world.uuid}"])
    with world.database.writing() as session:
        session.add(EnclaveSigner(enclave_uuid=world.uuid, pcr8=PCRS[8]))
    challenge = world.platform.issue_challenge(world.uuid)
    document = world.boot.document(challenge)
    opened = world.open(world.platform.provision(world.uuid, document), challenge)
    with pytest.raises(ReleaseRefused, match="used before"):
        world.platform.provision(world.uuid, document)
    world.platform.record_event(world.uuid, "process.exit", "status 1")
    image, digest = image_of(PCRS), hashlib.sha256(b"sealed").digest()
    name = name_of("tls", image)
    proof = proof_of(
        secret=opened["sealing_secret"],
        image=image,
        enclave=world.uuid,
        name=name,
        version=1,
        digest=digest,
    )
    assert world.platform.record_object(
        world.uuid,
        boot_key=world.boot.key.public,
        name=name,
        version=1,
        sha256=digest,
        proof=proof,
    )
    return world, key.secret


def older(world: World, folder: pathlib.Path, schema: int, url: str | None = None) -> pathlib.Path:
    """A store of an earlier schema with what a world has, and the same master key."""
    folder.mkdir(mode=0o700)
    shutil.copy2(world.database.directory / databases.MASTER_KEY_FILE, folder)
    if url is None:
        engine = engines.sqlite(folder / databases.DATABASE_FILE)
    else:
        engine = engines.postgresql(engines.database_url(url))
    try:
        _fill(engine, world, schema)
    finally:
        engine.dispose()
    return folder


def counts(engine: Engine) -> dict[str, int]:
    """How many rows each table has, by what is in the database and not by the models."""
    with engine.connect() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(Table(name, Base.metadata)))
            .scalars()
            .one()
            for name in inspect(connection).get_table_names()
            if name in Base.metadata.tables
        }


def _fill(engine: Engine, world: World, schema: int) -> None:
    writing = engine.execution_options(cloister_writes=True)
    with world.database.reading() as source, writing.begin() as target:
        migrations.upgrade(target, schema_version=0, to=schema)
        there = {
            name: {one["name"] for one in inspect(target).get_columns(name)}
            for name in inspect(target).get_table_names()
        }
        for table in Base.metadata.sorted_tables:
            columns = [one for one in table.columns if one.name in there.get(table.name, ())]
            if columns:
                rows = [dict(row) for row in source.execute(select(*columns)).mappings()]
                assert rows, f"`{table.name}` has no rows"
                target.execute(insert(table), rows)
        target.execute(update(StoreRow).values(schema_version=schema))


def _write_vectors(target: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        world, api_key = filled(pathlib.Path(place) / "world")
        for schema in SCHEMAS:
            folder = older(world, pathlib.Path(place) / str(schema), schema)
            database = databases.open_unmigrated(folder, TrustClass.DEVELOPMENT)
            file = target / f"backup_schema_{schema}"
            file.unlink(missing_ok=True)
            backup.write(database, file, now_ms=to_ms(world.clock()))
            file.chmod(0o644)
            database.close()
        facts = {
            "master_key": (world.database.directory / databases.MASTER_KEY_FILE).read_bytes().hex(),
            "service_key": world.store.service_public_key.hex(),
            "app": str(world.store.app_uuid),
            "enclave": str(world.uuid),
            "api_key": api_key,
        }
        (target / "backups.json").write_text(json.dumps(facts, indent=2) + "\n")
        world.database.close()


if __name__ == "__main__":
    _write_vectors(pathlib.Path(sys.argv[1]))
