"""The end of an enclave: all of its own goes, and nothing that something still runs with."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import func, select
from tests.support.platform_world import PCRS, World
from tests.unit.platform.test_server import ask

from cloister.errors import ConfigError, MissingInput, ReleaseRefused
from cloister.platform.owner import Owner
from cloister.platform.tables import Base
from cloister.platform.tokens import Tokens
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables


def owner_of(world: World) -> Owner:
    return Owner(world.database, world.clock)


def rows(world: World, enclave: uuid.UUID) -> dict[str, int]:
    """How many rows each table has of an enclave."""
    with world.database.reading() as session:
        return {
            table.name: session.scalar(
                select(func.count()).select_from(table).where(table.c.enclave_uuid == enclave)
            )
            or 0
            for table in Base.metadata.sorted_tables
            if "enclave_uuid" in table.c
        }


def filled(world: World, enclave: uuid.UUID) -> None:
    """Something in every table that says of whom it is, and has nothing yet."""
    empty = {name for name, count in rows(world, enclave).items() if not count}
    now_ms = 1
    values = {"enclave_uuid": enclave, "name": "X", "issued_ms": now_ms}
    with world.database.writing() as session:
        for table in Base.metadata.sorted_tables:
            if table.name not in empty:
                continue
            row = {
                column.name: values.get(column.name, _some(column.type.python_type))
                for column in table.c
                if column.name in values or not (column.nullable or column.name == "id")
            }
            session.execute(table.insert().values(row))


def _some(kind: type) -> object:
    return {int: 1, str: "x", bytes: b"x" * 48, bool: False}.get(kind, {})


def test_all_that_is_of_one_enclave_alone_goes(world: World) -> None:
    other = uuid.uuid4()
    world.registry.add_enclave(
        world.store.app_uuid, "other", uuid=other, trust_class=TrustClass.DEVELOPMENT
    )
    world.registry.add_deployment(other, {index: PCRS[index] for index in (0, 1, 2)})
    world.provision()
    filled(world, world.uuid)
    before = rows(world, world.uuid)
    assert all(before.values()), before  # else the search below proves nothing
    Variables(world.database, other).set("TOKEN", b"of the other", secret=False)
    of_other = rows(world, other)

    world.registry.end_deployment(world.deployment)
    world.clock.advance(minutes=15)
    owner_of(world).delete_enclave(world.uuid)

    after = rows(world, world.uuid)
    assert {name for name, count in after.items() if count} == {"releases"}
    assert after["releases"] == before["releases"]
    assert rows(world, other) == of_other
    assert world.registry.enclave(world.uuid) is None
    newest = owner_of(world).activity(limit=1)[0]
    assert (newest["kind"], newest["subject"]) == ("enclave.delete", str(world.uuid))
    assert owner_of(world).releases(world.uuid, limit=10)
    with pytest.raises(ReleaseRefused, match="no enclave of this uuid"):
        world.platform.issue_challenge(world.uuid)
    with pytest.raises(MissingInput, match="there is no enclave"):
        owner_of(world).delete_enclave(world.uuid)


def test_nothing_goes_while_something_may_run_with_it(world: World) -> None:
    world.provision()
    before = rows(world, world.uuid)
    with pytest.raises(ConfigError, match="has an active deployment"):
        owner_of(world).delete_enclave(world.uuid)
    world.registry.end_deployment(world.deployment)
    world.clock.advance(minutes=14, seconds=59)
    with pytest.raises(ConfigError, match="a bundle that has not ended") as caught:
        owner_of(world).delete_enclave(world.uuid)
    assert caught.value.hint == "the last one ends in 1 s"
    assert rows(world, world.uuid) == before
    world.clock.advance(seconds=1)
    owner_of(world).delete_enclave(world.uuid)


def test_a_deployment_that_ended_by_itself_is_not_in_the_way(world: World) -> None:
    end = world.clock() + dt.timedelta(minutes=1)
    world.registry.add_deployment(world.uuid, {i: PCRS[i] for i in (0, 1, 2)}, until=end)
    with pytest.raises(ConfigError, match="has an active deployment"):
        owner_of(world).delete_enclave(world.uuid)
    world.clock.advance(minutes=1)
    owner_of(world).delete_enclave(world.uuid)


def test_a_uuid_that_was_deleted_is_not_registered_again(world: World) -> None:
    """Tokens of hosts and images have it, and would carry for another enclave."""
    world.registry.end_deployment(world.deployment)
    owner_of(world).delete_enclave(world.uuid)
    with pytest.raises(ConfigError, match="was deleted, and its uuid is not registered again"):
        owner_of(world).add_enclave(world.store.app_uuid, "hello", uuid=world.uuid)
    assert owner_of(world).add_enclave(world.store.app_uuid, "hello")["name"] == "hello"


def test_only_who_manages_the_app_deletes(world: World) -> None:
    world.registry.end_deployment(world.deployment)
    path = f"/v1/enclaves/{world.uuid}"
    tokens = Tokens(world.database, world.clock)
    app = world.store.app_uuid
    for scope in (f"deploy:{app}", f"read:{app}", f"relay:{world.uuid}"):
        token = tokens.create("t", scopes=[scope]).secret
        assert ask(world, path, method="DELETE", token=token).status_code == 403
    manager = tokens.create("t", scopes=[f"manage:{app}"]).secret
    assert ask(world, path, method="DELETE", token=manager).status_code == 204
    assert ask(world, path, method="DELETE", token=manager).status_code == 403
    assert ask(world, path, method="DELETE").status_code == 404
    # The owner reads what was released; there was nothing.
    assert ask(world, f"{path}/releases").status_code == 404
