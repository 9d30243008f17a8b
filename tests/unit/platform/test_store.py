"""The store: made once, private, encrypted at rest, and refused when something is off."""

import json
import pathlib
import sqlite3
import stat
import threading
import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.platform_world import PCRS, World

from cloister.errors import CloisterError, ConfigError, MissingInput, StoreError
from cloister.platform import local
from cloister.platform.api_keys import ApiKeys
from cloister.platform.credentials import hash_of
from cloister.platform.registry import Registry
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables
from cloister.platform.vault import Vault

ENCLAVE = uuid.UUID("0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33")


def test_making_the_store_again_replaces_nothing(tmp_path: pathlib.Path) -> None:
    first = local.init_store(tmp_path, name="hello", uuid=ENCLAVE)
    public = local.app_public_key(tmp_path)
    again = local.init_store(tmp_path, name="hello", uuid=str(ENCLAVE))
    assert again == first
    assert local.app_public_key(tmp_path) == public


def test_another_enclave_shares_the_app_of_the_folder(tmp_path: pathlib.Path) -> None:
    first = local.init_store(tmp_path, name="hello", uuid=ENCLAVE)
    second = local.init_store(tmp_path, name="other", uuid=uuid.uuid4())
    assert (second.app_uuid, second.service_public_key) == (
        first.app_uuid,
        first.service_public_key,
    )


def test_files_are_for_their_owner_alone(tmp_path: pathlib.Path) -> None:
    place = local.init_store(tmp_path, name="hello", uuid=ENCLAVE).directory
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {"master.key", "store.sqlite3"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert (tmp_path / ".cloister" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"*\n"),
        (b"dev\n", b"*\ndev\n"),
        (b"*.log\n!*\n", b"*\n*.log\n!*\n"),
        (b"# mine\r\n*\r\n", b"# mine\r\n*\r\n"),
        (b"*\n!signing/cert.pem\n", b"*\n!signing/cert.pem\n"),
    ],
)
def test_the_folder_of_keys_stays_out_of_repositories(
    tmp_path: pathlib.Path, before: bytes, after: bytes
) -> None:
    """A full disk once left the file empty, and `git status` showed the signing key."""
    ignore = tmp_path / ".cloister" / ".gitignore"
    ignore.parent.mkdir()
    ignore.write_bytes(before)
    local.init_store(tmp_path, name="hello", uuid=ENCLAVE)
    assert ignore.read_bytes() == after


def test_private_values_are_not_in_the_database_in_clear(world: World) -> None:
    key = world.keys.create("client", scopes=["app"])
    Variables(world.database, world.uuid).set("TOKEN", b"a secret value", secret=False)
    private = json.loads(local.development_app_key_file(world.directory))["private"]
    world.database.close()
    content = b"".join(path.read_bytes() for path in world.store.directory.glob("store.sqlite3*"))
    assert hash_of(key.secret) in content  # else the search below proves nothing
    for clear in (b"a secret value", key.secret.encode(), private.encode()):
        assert clear not in content
    assert serialized_private(world.directory) not in content


def serialized_private(directory: pathlib.Path) -> bytes:
    import base64  # noqa: PLC0415

    return base64.b64decode(json.loads(local.development_app_key_file(directory))["private"])


def test_the_exported_app_key_is_the_pair_of_the_public_key(world: World) -> None:
    exported = json.loads(local.development_app_key_file(world.directory))
    assert (exported["class"], exported["curve"]) == ("development", "P-256")
    scalar = int.from_bytes(serialized_private(world.directory), "big")
    point = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    compressed = point.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    assert compressed == local.app_public_key(world.directory)
    assert len(compressed) == 33


def test_the_newest_app_key_is_the_one_to_encrypt_to(world: World) -> None:
    newest = world.registry.add_app_key(world.store.app_uuid)
    assert local.app_public_key(world.directory) == newest
    for _ in range(2):
        world.registry.add_app_key(world.store.app_uuid)
    with pytest.raises(ConfigError, match="4 key pairs"):
        world.registry.add_app_key(world.store.app_uuid)


def test_a_folder_without_a_store_says_what_to_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StoreError, match="there is no store") as caught:
        local.open_store(tmp_path)
    assert "cloister init" in str(caught.value.hint)


def test_a_master_key_that_others_can_read_is_refused(world: World) -> None:
    master = world.store.directory / "master.key"
    master.chmod(0o640)
    with pytest.raises(StoreError, match="mode 0640, expected 0600"):
        local.open_store(world.directory)
    master.chmod(0o600)
    local.open_store(world.directory).close()


def test_the_master_key_of_another_store_is_refused(world: World, tmp_path: pathlib.Path) -> None:
    other = local.init_store(tmp_path / "other", name="hello", uuid=ENCLAVE).directory
    (world.store.directory / "master.key").write_bytes((other / "master.key").read_bytes())
    with pytest.raises(StoreError, match="cannot be opened with this master key"):
        local.open_store(world.directory)


def test_a_newer_schema_is_refused_and_left_alone(world: World) -> None:
    world.database.close()
    path = world.store.directory / "store.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE store SET schema_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="has schema 99, this program reads schema 3"):
        local.open_store(world.directory)


def test_a_damaged_database_is_an_error_and_not_a_crash(world: World) -> None:
    world.database.close()
    (world.store.directory / "store.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        local.open_store(world.directory)


def test_a_ciphertext_cannot_be_moved_to_another_place() -> None:
    vault = Vault(b"k" * 32, TrustClass.DEVELOPMENT)
    sealed = vault.seal(b"value", place="variables/a/X")
    assert vault.open(sealed, place="variables/a/X") == b"value"
    for place in ("variables/b/X", "variables/a/Y"):
        with pytest.raises(StoreError, match="cannot be opened"):
            vault.open(sealed, place=place)
    with pytest.raises(StoreError, match="cannot be opened"):
        Vault(b"k" * 32, TrustClass.PRODUCTION).open(sealed, place="variables/a/X")
    for damaged in (b"", sealed[:-1], sealed[:5], b"\x02" + sealed[1:]):
        with pytest.raises(StoreError):
            vault.open(damaged, place="variables/a/X")


def test_a_failed_change_leaves_nothing_behind(world: World) -> None:
    before = world.keys.all()
    record = world.registry.enclave(world.uuid)
    with pytest.raises(MissingInput, match="has no enclave"):
        world.keys.create("a", scopes=["app", f"enclave:{uuid.uuid4()}"])
    assert world.keys.all() == before
    assert world.registry.enclave(world.uuid) == record
    assert world.keys.create("a", scopes=["app", f"enclave:{world.uuid}"]).record.name == "a"


@pytest.mark.parametrize("scope", ["", "app ", "enclave", "enclave:", "enclave:x", "all", "*"])
def test_an_unknown_scope_is_refused(world: World, scope: str) -> None:
    with pytest.raises(ConfigError, match="unknown scope"):
        world.keys.create("a", scopes=[scope])
    with pytest.raises(ConfigError, match="1 to 64 scopes"):
        world.keys.create("a", scopes=[])


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb", "a\x1b[0m"])
def test_a_key_name_that_cannot_be_shown_is_refused(world: World, name: str) -> None:
    with pytest.raises(ConfigError, match="printable"):
        world.keys.create(name, scopes=["app"])


@pytest.mark.parametrize("name", ["Hello", "-a", "a-", "a" * 64, "", "a.b", "ä"])
def test_a_name_that_is_no_dns_label_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a DNS label"):
        local.init_store(tmp_path, name=name, uuid=ENCLAVE)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "Ä", "A\0"])
def test_a_variable_name_that_no_process_can_have_is_refused(world: World, name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a variable"):
        Variables(world.database, world.uuid).set(name, b"", secret=False)


def test_values_that_no_process_can_have_are_refused(world: World) -> None:
    variables = Variables(world.database, world.uuid)
    with pytest.raises(ConfigError, match="NUL"):
        variables.set("A", b"a\0b", secret=False)
    with pytest.raises(ConfigError, match="the limit is"):
        variables.set("A", b"a" * (96 * 1024 + 1), secret=False)
    for index in range(5):
        variables.set(f"A{index}", b"a" * (96 * 1024), secret=False)
    with pytest.raises(ConfigError, match="together"):
        variables.set("A5", b"a" * (96 * 1024), secret=False)
    assert list(variables.names()) == ["A0", "A1", "A2", "A3", "A4"]


@pytest.mark.parametrize(
    ("pcrs", "expected"),
    [
        ({0: PCRS[0], 1: PCRS[1]}, "must name PCR2"),
        ({0: PCRS[0], 1: PCRS[1], 2: b"short"}, "PCR2 is 5 bytes long"),
        ({0: bytes(48), 1: PCRS[1], 2: PCRS[2]}, "not registered as debug"),
        ({0: PCRS[0], 1: PCRS[1], 2: PCRS[2], 32: PCRS[0]}, "not between 0 and 31"),
    ],
)
def test_a_deployment_names_what_identifies_code(
    world: World, pcrs: dict[int, bytes], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        world.registry.add_deployment(world.uuid, pcrs)


def test_the_same_image_is_one_deployment(world: World) -> None:
    again = world.registry.add_deployment(world.uuid, {i: PCRS[i] for i in (0, 1, 2)})
    assert again == world.deployment
    world.registry.end_deployment(again)
    assert not world.registry.deployments(world.uuid)[0].active
    assert world.registry.add_deployment(world.uuid, {i: PCRS[i] for i in (0, 1, 2)}) == again
    assert world.registry.deployments(world.uuid)[0].active


def test_writers_in_several_threads_lose_nothing(world: World) -> None:
    errors: list[CloisterError] = []

    def make(number: int) -> None:
        database = local.open_store(world.directory)
        try:
            for index in range(5):
                ApiKeys(database, world.store.app_uuid).create(f"{number}-{index}", scopes=["app"])
        except CloisterError as problem:
            errors.append(problem)
        finally:
            database.close()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(world.keys.all()) == 20
    record = Registry(world.database).enclave(world.uuid)
    assert record is not None
    assert record.bundle_version == 21
