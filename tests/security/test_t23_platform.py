"""T-23: development and production never mix, at the platform."""

import pathlib
import sqlite3
import uuid

import pytest
from tests.support.platform_world import PCRS, ManualClock, SimulatedBoot, World, make_world

from cloister.errors import ConfigError, ReleaseRefused, StoreError
from cloister.platform import database as databases
from cloister.platform import local
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.registry import Registry
from cloister.platform.trust_class import TrustClass


@pytest.fixture
def development(tmp_path: pathlib.Path) -> World:
    return make_world(tmp_path / "development")


@pytest.fixture
def production(tmp_path: pathlib.Path) -> databases.Database:
    return databases.create(tmp_path / "production", TrustClass.PRODUCTION, now_ms=0)


def test_production_code_refuses_a_development_store_and_the_reverse(
    development: World, production: databases.Database
) -> None:
    place = development.store.directory
    with pytest.raises(StoreError, match="of class `development`, expected `production`"):
        databases.open_existing(place, TrustClass.PRODUCTION)
    with pytest.raises(StoreError, match="of class `development`, expected `production`"):
        databases.create(place, TrustClass.PRODUCTION, now_ms=0)
    with pytest.raises(StoreError, match="of class `production`, expected `development`"):
        databases.open_existing(production.directory, TrustClass.DEVELOPMENT)
    databases.open_existing(place, TrustClass.DEVELOPMENT).close()
    databases.open_existing(production.directory, TrustClass.PRODUCTION).close()


def test_relabeling_the_database_does_not_make_it_production(development: World) -> None:
    development.database.close()
    path = development.store.directory / databases.DATABASE_FILE
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE store SET trust_class = 'production'")
    connection.close()
    with pytest.raises(StoreError, match="cannot be opened with this master key"):
        databases.open_existing(development.store.directory, TrustClass.PRODUCTION)


def test_a_production_store_takes_no_development_enclave_and_the_reverse(
    development: World, production: databases.Database
) -> None:
    def add(database: databases.Database, trust_class: TrustClass) -> None:
        registry = Registry(database)
        app = registry.add_app(registry.add_team("team"), "app")
        registry.add_enclave(
            app,
            "hello",
            uuid=uuid.uuid4(),
            trust_class=trust_class,
            accepts_debug=trust_class is TrustClass.DEBUG,
        )

    for wrong in (TrustClass.PRODUCTION, TrustClass.DEBUG):
        with pytest.raises(ConfigError, match="cannot be in a store of class `development`"):
            add(development.database, wrong)
    with pytest.raises(ConfigError, match="cannot be in a store of class `production`"):
        add(production, TrustClass.DEVELOPMENT)
    for right in (TrustClass.PRODUCTION, TrustClass.DEBUG):
        add(production, right)
    add(development.database, TrustClass.DEVELOPMENT)


def test_a_debug_enclave_never_shares_an_app_with_a_production_one(
    production: databases.Database,
) -> None:
    """They would have one set of keys, and what a debug enclave does can be read on its console."""
    registry = Registry(production)
    team = registry.add_team("team")
    for name, first, second in (
        ("a", TrustClass.PRODUCTION, TrustClass.DEBUG),
        ("b", TrustClass.DEBUG, TrustClass.PRODUCTION),
    ):
        app = registry.add_app(team, name)

        def add(trust_class: TrustClass, app: uuid.UUID = app) -> None:
            registry.add_enclave(
                app,
                "hello",
                uuid=uuid.uuid4(),
                trust_class=trust_class,
                accepts_debug=trust_class is TrustClass.DEBUG,
            )

        add(first)
        with pytest.raises(ConfigError, match="would get the same keys"):
            add(second)
        add(first)


def test_a_production_platform_cannot_be_given_a_development_root(
    development: World, production: databases.Database
) -> None:
    root = development.root_dir / "nsm-root.pem"
    with pytest.raises(ReleaseRefused, match="without a development root only"):
        EmbeddedPlatform(production, development_root=root)
    with pytest.raises(ReleaseRefused, match="with a development root only"):
        EmbeddedPlatform(development.database)
    EmbeddedPlatform(production)
    EmbeddedPlatform(development.database, development_root=root)


def test_a_production_enclave_is_not_released_to_under_the_development_root(
    development: World, production: databases.Database
) -> None:
    """Same registers, right challenge, a document that verifies: only the root differs."""
    clock: ManualClock = development.clock
    registry = Registry(production, clock)
    app = registry.add_app(registry.add_team("team"), "app")
    enclave = uuid.uuid4()
    registry.add_enclave(app, "hello", uuid=enclave, trust_class=TrustClass.PRODUCTION)
    registry.add_deployment(enclave, {index: PCRS[index] for index in (0, 1, 2)})
    platform = EmbeddedPlatform(production, clock=clock)
    boot: SimulatedBoot = development.boot
    with pytest.raises(ReleaseRefused, match=r"refused \(UntrustedChain\)"):
        platform.provision(enclave, boot.document(platform.issue_challenge(enclave)))
    development.provision(boot)


def test_keys_and_uuids_of_two_stores_differ(tmp_path: pathlib.Path) -> None:
    one, other = (
        local.init_store(tmp_path / name, name="hello", uuid=uuid.uuid4()) for name in ("a", "b")
    )
    assert one.service_public_key != other.service_public_key
    assert one.app_uuid != other.app_uuid
    assert local.app_public_key(tmp_path / "a") != local.app_public_key(tmp_path / "b")
