"""A master key in AWS KMS, against moto's server: another implementation of the same API."""

import pathlib
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support.local_run import Somebody
from tests.support.platform_server import serving
from tests.support.platform_world import make_world
from tests.support.restored import assert_no_store, prepared

from cloister.errors import ConfigError, InputError, StoreError
from cloister.platform import backup, restoring
from cloister.platform import database as databases
from cloister.platform.master_key import KeyService, context_of, key_service
from cloister.platform.registry import Registry
from cloister.platform.trust_class import TrustClass

pytestmark = pytest.mark.filterwarnings("default")  # of boto3 and moto, not ours


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def arn(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("kms", region_name="eu-west-1")
    return str(client.create_key()["KeyMetadata"]["Arn"])


def test_a_store_without_a_master_key_file(arn: str, tmp_path: pathlib.Path) -> None:
    service = key_service(f"kms://{arn}")
    made = databases.create(tmp_path / "store", TrustClass.PRODUCTION, now_ms=1, wraps_key=service)
    team = Registry(made).add_team("owner")
    public = Registry(made).app_public_key(Registry(made).add_app(team, "default"))
    made.close()
    assert not (tmp_path / "store" / "master.key").exists()
    opened = databases.open_existing(tmp_path / "store", TrustClass.PRODUCTION)
    found = Registry(opened).sole_app()
    assert found is not None
    assert Registry(opened).app_public_key(found[0]) == public
    opened.close()


def test_a_backup_brings_its_wrapped_key(arn: str, tmp_path: pathlib.Path) -> None:
    service = key_service(f"kms://{arn}")
    made = databases.create(tmp_path / "a", TrustClass.PRODUCTION, now_ms=1, wraps_key=service)
    team = Registry(made).add_team("owner")
    public = Registry(made).add_service_key(team)
    backup.write(made, tmp_path / "backup", now_ms=2)
    made.close()
    file, folder = tmp_path / "backup", tmp_path / "b"
    restoring.restore(folder, file, TrustClass.PRODUCTION, now_ms=4, wraps_key=service)
    opened = databases.open_existing(tmp_path / "b", TrustClass.PRODUCTION)
    assert Registry(opened).service_public_keys(team) == [public]
    opened.close()


def test_t24_a_backup_does_not_say_who_opens_its_key(arn: str, tmp_path: pathlib.Path) -> None:
    """A forger's own key, which these credentials may use, would make the forger its author."""
    foreign = boto3.client("kms", region_name="eu-west-1").create_key()["KeyMetadata"]["Arn"]
    ours, theirs = key_service(f"kms://{arn}"), key_service(f"kms://{foreign}")
    for name, service in (("ours", ours), ("theirs", theirs)):
        made = databases.create(tmp_path / name, TrustClass.PRODUCTION, now_ms=1, wraps_key=service)
        Registry(made).add_team("owner")
        backup.write(made, tmp_path / f"{name}.backup", now_ms=2)
        made.close()

    def restore(name: str, service: KeyService | None) -> None:
        file = tmp_path / f"{name}.backup"
        restoring.restore(tmp_path / "b", file, TrustClass.PRODUCTION, now_ms=4, wraps_key=service)

    with pytest.raises(InputError, match="is wrapped by another key service"):
        restore("theirs", ours)
    with pytest.raises(InputError, match="is wrapped by another key service"):
        restore("ours", None)
    assert not (tmp_path / "b").exists()
    restore("ours", ours)
    target = databases.open_existing(tmp_path / "b", TrustClass.PRODUCTION)
    assert Registry(target).sole_team() is not None
    target.close()


def test_a_backup_with_a_key_in_a_file_is_not_restored_under_a_key_service(
    arn: str, tmp_path: pathlib.Path
) -> None:
    world = make_world(tmp_path / "world")
    backup.write(world.database, tmp_path / "backup", now_ms=2)
    service = key_service(f"kms://{arn}")
    file, folder = tmp_path / "backup", prepared(tmp_path / "b", world.database)
    with pytest.raises(InputError, match="is in a file, not where that of the store is"):
        restoring.restore(folder, file, TrustClass.DEVELOPMENT, now_ms=4, wraps_key=service)
    assert_no_store(folder)
    restoring.restore(folder, file, TrustClass.DEVELOPMENT, now_ms=4)
    world.database.close()


def test_a_server_with_a_key_in_kms(arn: str, endpoint: str, tmp_path: pathlib.Path) -> None:
    more = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    who = Somebody(home=tmp_path, more=more)
    with serving(who, tmp_path / "state", "--master-key", f"kms://{arn}") as server:
        assert server.owner().add_app("more")["public_key"]
        assert not (server.folder / "master.key").exists()
        assert server.end() == 0
        server.start()
        assert [app["name"] for app in server.owner().apps()] == ["default", "more"]


def test_a_key_of_another_class_or_key_does_not_open(arn: str) -> None:
    service = key_service(f"kms://{arn}")
    clear, wrapped = service.generate(context_of(TrustClass.DEVELOPMENT))
    assert service.unwrap(wrapped, context_of(TrustClass.DEVELOPMENT)) == clear
    assert len(clear) == 32
    assert clear not in wrapped
    with pytest.raises(StoreError, match="does not open the master key"):
        service.unwrap(wrapped, context_of(TrustClass.PRODUCTION))
    other = boto3.client("kms", region_name="eu-west-1").create_key()["KeyMetadata"]["Arn"]
    with pytest.raises(StoreError, match="does not open the master key"):
        key_service(f"kms://{other}").unwrap(wrapped, context_of(TrustClass.DEVELOPMENT))
    missing = arn[:-12] + "000000000000"
    with pytest.raises(StoreError, match="NotFound"):
        key_service(f"kms://{missing}").generate(context_of(TrustClass.DEVELOPMENT))


def test_a_service_that_is_away_is_said(
    arn: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = key_service(f"kms://{arn}")
    databases.create(tmp_path / "s", TrustClass.PRODUCTION, now_ms=1, wraps_key=service).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="does not open the master key: EndpointConnectionError"):
        databases.open_existing(tmp_path / "s", TrustClass.PRODUCTION)


@pytest.mark.parametrize("uri", ["", "file2", "kms://", "kms://key/abc", "kms:arn:aws:kms:a"])
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="master key's address"):
        key_service(uri)


def test_a_file_is_enough_without_a_service(tmp_path: pathlib.Path) -> None:
    world = make_world(tmp_path)
    assert (world.store.directory / "master.key").exists()
    world.database.close()
