"""Backup and restore, within a database and across, and what it means for enclaves that run."""

import hashlib
import json
import pathlib
import stat
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.support import postgresql
from tests.support.platform_world import World, make_world
from tests.support.restored import assert_no_store, prepared, restored

from cloister.errors import InputError, OutputError, ReleaseRefused, StoreError
from cloister.platform import backup, restoring
from cloister.platform import database as databases
from cloister.platform.api_keys import ApiKeys
from cloister.platform.clock import to_ms
from cloister.platform.database import Database
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.registry import Registry
from cloister.platform.tables import Base
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    yield from postgresql.running()


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    yield made
    made.database.close()


def counts(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


@pytest.mark.parametrize("route", [("sqlite",), ("postgresql", "sqlite")])
def test_everything_comes_back(
    world: World, tmp_path: pathlib.Path, request: pytest.FixtureRequest, route: tuple[str, ...]
) -> None:
    key = world.keys.create("client", scopes=["app"])
    Variables(world.database, world.uuid).set("RAW", bytes(range(1, 256)), secret=False)
    world.provision()
    with pytest.raises(ReleaseRefused):
        world.provision(nonce=b"n" * 32)
    database, before = world.database, counts(world.database)
    for number, kind in enumerate(route):
        file = tmp_path / f"backup-{number}"
        made = backup.write(database, file, now_ms=7)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert made == backup.check(file)
        if database is not world.database:
            database.close()
        folder = prepared(tmp_path / f"restored-{number}", world.database)
        is_file = kind == "sqlite"
        url = None if is_file else request.getfixturevalue("server").database()
        database = restored(folder, file, url=url)
    after = counts(database)
    hops = len(route)
    assert after == before | {"activity": before["activity"] + hops, "challenges": 0}
    assert ApiKeys(database, world.store.app_uuid).works(key.secret)
    assert Variables(database, world.uuid).get("RAW").value == bytes(range(1, 256))
    registry = Registry(database)
    record = registry.enclave(world.uuid)
    first = world.registry.enclave(world.uuid)
    assert record is not None
    assert first is not None
    # The clock of this restore stands at the beginning of time: the backup's own versions count.
    assert record.bundle_version == first.bundle_version + hops * (1 << 20)
    # Rows that number themselves go on after those that came back.
    Registry(database).add_team("more")
    assert counts(database)["activity"] == after["activity"] + 1
    database.close()


def test_an_enclave_that_is_ahead_of_the_backup_goes_on(
    world: World, tmp_path: pathlib.Path
) -> None:
    revoked = world.keys.create("before", scopes=["app"])
    challenge = world.platform.issue_challenge(world.uuid)
    world.platform.provision(world.uuid, world.boot.document(challenge))
    file = tmp_path / "backup"
    backup.write(world.database, file, now_ms=7)
    # After the backup: a revocation, more changes, and another boot.
    world.keys.revoke(revoked.record.id)
    for number in range(20):
        world.keys.create(f"k{number}", scopes=["app"])
    seen = world.open(world.platform.newer_bundle(world.uuid, 1) or b"", challenge)["version"]
    later = world.another_boot()
    world.provision(later)
    world.database.close()

    database = restored(prepared(tmp_path / "restored", world.database), file)
    platform = served(world, database)
    opened = opened_after(world, platform, challenge, seen)
    # What was revoked after the backup works again: the command says so, and this is why.
    assert revoked.record.id in {key[0] for key in opened["api_keys"]}
    # A boot that the backup does not know is told to prove itself again, and can.
    with pytest.raises(ReleaseRefused, match="not provisioned"):
        platform.newer_bundle(world.uuid, seen, boot_key=later.key.public)
    again = platform.issue_challenge(world.uuid)
    assert world.open(platform.provision(world.uuid, later.document(again)), again, later)
    database.close()


def test_restores_of_one_backup_are_each_ahead_of_the_one_before(
    world: World, tmp_path: pathlib.Path
) -> None:
    """With a jump from the backup's own versions the second would give those of the first again."""
    challenge = world.platform.issue_challenge(world.uuid)
    sealed = world.platform.provision(world.uuid, world.boot.document(challenge))
    seen = world.open(sealed, challenge)["version"]
    files = [tmp_path / "monday", tmp_path / "later"]
    backup.write(world.database, files[0], now_ms=to_ms(world.clock()))
    world.database.close()
    # Monday's again; one of a restored store in between; Monday's yet again.
    for number, file in enumerate((files[0], files[0], files[1], files[0])):
        world.clock.advance(seconds=1)
        folder = prepared(tmp_path / f"restored-{number}", world.database)
        database = restored(folder, file, now_ms=to_ms(world.clock()))
        platform = served(world, database)
        first = opened_after(world, platform, challenge, seen)["version"]
        for name in ("one", "two", "three"):
            ApiKeys(database, world.store.app_uuid, world.clock).create(name, scopes=["app"])
        seen = opened_after(world, platform, challenge, first)["version"]
        assert seen == first + 3
        files[1].unlink(missing_ok=True)
        backup.write(database, files[1], now_ms=to_ms(world.clock()))
        database.close()


def served(world: World, database: Database) -> EmbeddedPlatform:
    """A platform with a restored store."""
    return EmbeddedPlatform(
        database, development_root=world.root_dir / "nsm-root.pem", clock=world.clock
    )


def opened_after(
    world: World, platform: EmbeddedPlatform, challenge: bytes, seen: int
) -> dict[str, Any]:
    """The newer bundle, as an enclave opens it that has seen this version: none as old or older."""
    newer = platform.newer_bundle(world.uuid, seen, boot_key=world.boot.key.public)
    assert newer is not None
    opened: dict[str, Any] = world.boot.key.open_bundle(
        newer,
        service_keys=[world.store.service_public_key],
        enclave=str(world.uuid),
        challenge=challenge,
        pcr0=world.boot.pcrs[0],
        minimum_version=seen,
        now_ms=to_ms(world.clock()),
    )
    assert opened["version"] > seen
    return opened


def test_a_backup_holds_nothing_in_clear(world: World, tmp_path: pathlib.Path) -> None:
    key = world.keys.create("client", scopes=["app"])
    Variables(world.database, world.uuid).set("A", b"marked value", secret=False)
    file = tmp_path / "backup"
    backup.write(world.database, file, now_ms=7)
    content = file.read_bytes()
    assert b"client" in content
    master = (world.store.directory / "master.key").read_bytes()
    for clear in (b"marked value", key.secret.encode(), master, master.hex().encode()):
        assert clear not in content


def test_a_backup_that_was_cut_or_damaged_is_refused(world: World, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "backup"
    backup.write(world.database, file, now_ms=7)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    wrong = tmp_path / "wrong"
    for content in (
        b"",
        b"x",
        b"".join(lines[:-1]),
        b"".join(lines[:5] + lines[6:]),
        whole.replace(b"hello", b"hallo"),
        whole + lines[-1],
    ):
        wrong.write_bytes(content)
        with pytest.raises(InputError, match=r"not a backup|not whole"):
            backup.check(wrong)
    assert backup.check(file).rows == len(lines) - 2 - len(Base.metadata.sorted_tables) + 1


def test_a_line_longer_than_any_of_a_backup_is_not_read_whole(
    world: World, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "backup"
    backup.write(world.database, path, now_ms=1)
    backup.check(path)
    first, _, rest = path.read_bytes().partition(b"\n")
    with path.open("wb") as file:
        file.write(first + b"\n")
        file.truncate(1 << 34)  # zeros, without a line feed, in a sparse file
        file.seek(0, 2)
        file.write(rest)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="is not a backup"):
            backup.check(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 99}, r"has schema 99, this program reads schemas up to \d"),
        ({"schema": 0}, "is not a backup"),
        ({"schema": True}, "is not a backup"),
        ({"schema": None}, "is not a backup"),
        ({"schema": "3"}, "is not a backup"),
        ({"created_ms": None}, "is not a backup"),
        ({"created_ms": "7"}, "is not a backup"),
        ({"created_ms": 1 << 62}, "is not a backup"),
        ({"trust_class": "other"}, "is not a backup"),
        ({"trust_class": ["development"]}, "is not a backup"),
        ({"format": "another/1"}, "is not a backup"),
    ],
)
def test_a_head_of_another_kind_is_refused(
    world: World, tmp_path: pathlib.Path, changes: dict[str, object], expected: str
) -> None:
    """Its end fits it, so that nothing else is what is wrong."""
    file = tmp_path / "backup"
    made = backup.write(world.database, file, now_ms=7)
    head, *body, end = file.read_bytes().splitlines(keepends=True)

    def changed(**changes: object) -> pathlib.Path:
        content = json.dumps(json.loads(head) | changes).encode() + b"\n" + b"".join(body)
        digest = {"sha256": hashlib.sha256(content).hexdigest()}
        path = tmp_path / "changed"
        path.write_bytes(content + json.dumps(json.loads(end) | digest).encode() + b"\n")
        return path

    assert backup.check(changed()) == made
    with pytest.raises(InputError, match=expected):
        backup.check(changed(**changes))


def test_a_backup_replaces_nothing(world: World, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "backup"
    file.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        backup.write(world.database, file, now_ms=7)
    assert file.read_text() == "mine"
    with pytest.raises(OutputError, match="cannot write"):
        backup.write(world.database, tmp_path / "none" / "backup", now_ms=7)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_restore_fails_as_a_whole(world: World, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "backup"
    backup.write(world.database, file, now_ms=7)
    before = counts(world.database)
    with pytest.raises(StoreError, match="there is a store in"):
        restored(world.database.directory, file)
    assert counts(world.database) == before
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "master.key").touch(mode=0o600)
    (other / "master.key").write_bytes(b"k" * 32)
    with pytest.raises(InputError, match="cannot be opened with this master key"):
        restored(other, file)
    assert [path.name for path in other.iterdir()] == ["master.key"]
    production = prepared(tmp_path / "production", world.database)
    with pytest.raises(InputError, match="of class `development`"):
        restoring.restore(production, file, TrustClass.PRODUCTION, now_ms=9)
    assert_no_store(production)
    fine = restored(prepared(tmp_path / "fine", world.database), file)
    assert counts(fine)["enclaves"] == 1
    fine.close()


def test_a_key_comes_with_the_store_or_not_at_all(
    world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key that stayed was in the way of the right one."""
    file, folder = tmp_path / "backup", tmp_path / "other"
    backup.write(world.database, file, now_ms=7)
    folder.mkdir(mode=0o700)
    right = (world.database.directory / "master.key").read_bytes()
    development = TrustClass.DEVELOPMENT
    with pytest.raises(InputError, match="cannot be opened with this master key"):
        restoring.restore(folder, file, development, now_ms=9, master_key=b"k" * 32)
    assert list(folder.iterdir()) == []
    # What fails later, when the key is there already, takes it away.
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            assert (folder / "master.key").read_bytes() == right
            raise StoreError("the disk is full")

        patch.setattr(restoring, "_become_newest", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            restoring.restore(folder, file, development, now_ms=9, master_key=right)
    assert not (folder / "master.key").exists()
    assert_no_store(folder)
    restoring.restore(folder, file, development, now_ms=9, master_key=right)
    assert stat.S_IMODE((folder / "master.key").stat().st_mode) == 0o600
    databases.open_existing(folder, development, migrates=False).close()
    # Nor is that of a store taken away by a restore that fails because there is one.
    with pytest.raises(StoreError, match="there is a store in"):
        restoring.restore(folder, file, development, now_ms=9, master_key=right)
    assert (folder / "master.key").read_bytes() == right


def test_a_key_of_another_store_is_not_replaced(world: World, tmp_path: pathlib.Path) -> None:
    file, folder = tmp_path / "backup", tmp_path / "other"
    backup.write(world.database, file, now_ms=7)
    right = (world.database.directory / "master.key").read_bytes()
    folder.mkdir(mode=0o700)
    (folder / "master.key").touch(mode=0o600)
    (folder / "master.key").write_bytes(b"k" * 32)
    with pytest.raises(OutputError, match="is another master key"):
        restoring.restore(folder, file, TrustClass.DEVELOPMENT, now_ms=9, master_key=right)
    assert (folder / "master.key").read_bytes() == b"k" * 32
    assert [path.name for path in folder.iterdir()] == ["master.key"]
