"""``cloister platform restore`` as a process: old backups, SIGKILL and a full disk on the way."""

import datetime as dt
import json
import pathlib
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, insert
from tests.support import postgresql
from tests.support.local_run import Somebody
from tests.support.older_stores import (
    FACTS,
    RAW,
    SCHEMAS,
    filled,
    folder_of_vectors,
    older,
    vector,
)
from tests.support.platform_server import PlatformServer, free_address
from tests.support.platform_world import PCRS, ManualClock, SimulatedBoot
from tests.support.restored import assert_no_store
from tests.support.small_disk import SmallDisk

from cloister.platform import backup
from cloister.platform import database as databases
from cloister.platform.clock import to_ms
from cloister.platform.engines import database_url
from cloister.platform.remote import RemotePlatform
from cloister.platform.server.setup import text_of
from cloister.platform.tables import Activity
from cloister.platform.trust_class import TrustClass

MANY = 60_000  # rows: more than SQLite keeps in memory before it writes
WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    yield from postgresql.running()


@pytest.fixture
def who(tmp_path: pathlib.Path) -> Somebody:
    home = tmp_path / "home"
    home.mkdir()
    return Somebody(home=home)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A backup of schema 1 that takes a while, under the master key of its folder."""
    place = tmp_path_factory.mktemp("large")
    world, _ = filled(place / "world")
    rows = [
        {"at_ms": number, "kind": "note", "subject": "large", "message": f"{number:0256}"}
        for number in range(MANY)
    ]
    with world.database.writing() as session:
        session.execute(insert(Activity), rows)
    folder = older(world, place / "older", 1)
    database = databases.open_unmigrated(folder, TrustClass.DEVELOPMENT)
    backup.write(database, folder / "backup", now_ms=7)
    database.close()
    world.database.close()
    return folder


def configured(folder: pathlib.Path, who: Somebody, url: str | None = None) -> pathlib.Path:
    """Writes ``platform.toml`` of a development platform into a folder."""
    found: dict[str, str | list[str] | int] = {
        "version": 1,
        "class": "development",
        "listen": free_address(),
        "names": ["127.0.0.1"],
        "development_root": str(who.home / "cloister" / "dev-ca" / "nsm-root.pem"),
    }
    if url is not None:
        found["database_url"] = url
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "platform.toml"
    file.touch(mode=0o600)
    file.write_text(text_of(found))
    return folder


def restore_words(file: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """The command."""
    return ["platform", "restore", str(file), "--dir", str(folder)]


def assert_not_served(who: Somebody, folder: pathlib.Path) -> None:
    """The server does not start on what is there."""
    words = ["platform", "serve", "--dir", str(folder)]
    said = who.run(*words, folder=folder, status=69)[1]
    assert "there is no store in" in said


def test_a_platform_of_the_oldest_backup_serves_and_releases(
    who: Somebody, tmp_path: pathlib.Path
) -> None:
    folder = configured(folder_of_vectors(tmp_path / "state"), who)
    said = who.json(*restore_words(vector(SCHEMAS[0]), folder), folder=tmp_path)
    assert said["schema"] == SCHEMAS[0]
    assert said["taken"] == "2026-05-04T12:00:00+00:00"
    made = who.json("platform", "init", "--dir", str(folder), folder=tmp_path)
    assert (made["app_uuid"], made["service_key"]) == (FACTS["app"], FACTS["service_key"])
    enclave = uuid.UUID(FACTS["enclave"])
    platform = PlatformServer(who, folder, made)
    clock = ManualClock(dt.datetime.now(dt.UTC))
    boot = SimulatedBoot(clock, root_dir=who.home / "cloister" / "dev-ca")
    platform.start()
    try:
        scopes = [f"relay:{enclave}"]
        token = platform.owner().create_token("host", scopes=scopes, not_after=None)
        host = RemotePlatform(platform.client(token["token"]))
        challenge = host.issue_challenge(enclave)
        opened = boot.key.open_bundle(
            host.provision(enclave, boot.document(challenge)),
            service_keys=[bytes.fromhex(FACTS["service_key"])],
            enclave=str(enclave),
            challenge=challenge,
            pcr0=PCRS[0],
            minimum_version=0,
            now_ms=to_ms(clock()),
        )
        assert opened["env"] == [("RAW", RAW, False)]
        # A backup of what it has become goes on from here.
        again = tmp_path / "again"
        words = ["platform", "backup", str(again), "--dir", str(folder)]
        assert who.json(*words, folder=tmp_path)["schema"] == databases.SCHEMA_VERSION
    finally:
        platform.end(signal.SIGKILL)


def test_an_old_store_is_backed_up_then_migrated(who: Somebody, tmp_path: pathlib.Path) -> None:
    """What the server says of an old store can be done, in that order."""
    world, _ = filled(tmp_path / "world")
    folder = configured(older(world, tmp_path / "state", 1), who)
    world.database.close()
    words = ["--dir", str(folder)]
    said = who.run("platform", "serve", *words, folder=tmp_path, status=69)[1]
    assert "has schema 1" in said
    assert "`cloister platform backup FILE`, then `cloister platform migrate`" in said
    made = who.json("platform", "backup", str(tmp_path / "before"), *words, folder=tmp_path)
    assert made["schema"] == 1
    assert "has schema 1" in who.run("platform", "serve", *words, folder=tmp_path, status=69)[1]
    assert who.json("platform", "migrate", *words, folder=tmp_path)["schema"] == SCHEMAS[-1]
    other = configured(tmp_path / "other", who)
    said = who.json(
        *restore_words(tmp_path / "before", other),
        "--master-key",
        str(folder / "master.key"),
        folder=tmp_path,
    )
    assert (said["schema"], said["rows"]) == (1, made["rows"])


def test_a_restore_with_a_wrong_key_is_not_in_the_way_of_the_right_one(
    who: Somebody, tmp_path: pathlib.Path
) -> None:
    folder = configured(tmp_path / "state", who)
    right = folder_of_vectors(tmp_path / "keys") / "master.key"
    wrong, short = tmp_path / "wrong.key", tmp_path / "short.key"
    for path, key in ((wrong, b"w" * 32), (short, b"s")):
        path.touch(mode=0o600)
        path.write_bytes(key)
    words = [*restore_words(vector(SCHEMAS[-1]), folder), "--master-key"]
    for path, status, said in (
        (wrong, 65, "cannot be opened with this master key"),
        (short, 65, "is not 32 bytes long"),
        (tmp_path / "none", 66, "No such file"),
    ):
        assert said in who.run(*words, str(path), folder=tmp_path, status=status)[1]
        assert [one.name for one in folder.iterdir()] == ["platform.toml"]
    who.json(*words, str(right), folder=tmp_path)
    assert (folder / "master.key").read_bytes() == right.read_bytes()


def test_a_restore_that_is_killed_leaves_no_store(
    who: Somebody, large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Killed when thousands of rows are on the disk, in SQLite's journal."""
    folder = configured(tmp_path / "state", who)
    shutil.copy2(large / "master.key", folder)
    journal = folder / "store.sqlite3-wal"
    words = restore_words(large / "backup", folder)
    with who.popen(words, tmp_path) as process:
        wait_until(lambda: journal.exists() and journal.stat().st_size > 1 << 20)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert journal.stat().st_size > 1 << 20
    assert_not_served(who, folder)
    assert_no_store(folder)
    assert who.json(*words, folder=tmp_path)["rows"] > MANY


def test_a_restore_into_postgresql_that_is_killed_leaves_no_store(
    server: postgresql.Server, who: Somebody, tmp_path: pathlib.Path
) -> None:
    """Killed in the last migration, which waits for somebody else's table of the same name."""
    url = server.database()
    folder = configured(folder_of_vectors(tmp_path / "state"), who, url)
    words = restore_words(vector(1), folder)
    engine = create_engine(database_url(url))
    ours = "FROM pg_stat_activity WHERE application_name = 'cloister'"
    try:
        with engine.connect() as other, engine.connect() as watching:

            def count(condition: str) -> int:
                found = watching.exec_driver_sql(f"SELECT count(*) {ours} {condition}")
                watching.rollback()
                return int(found.scalar_one())

            other.exec_driver_sql("CREATE TABLE object_heads (id INTEGER)")
            with who.popen(words, tmp_path) as process:
                waits = "AND wait_event_type = 'Lock' AND query LIKE '%%object_heads%%'"
                wait_until(lambda: count(waits) == 1)
                process.kill()
                assert process.wait() == -signal.SIGKILL
            other.rollback()
            wait_until(lambda: count("") == 0)
    finally:
        engine.dispose()
    assert_not_served(who, folder)
    assert_no_store(folder, url)
    who.run(*words, folder=tmp_path)


def test_a_restore_onto_a_full_disk_leaves_no_store(
    who: Somebody, large: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with SmallDisk(folder, 4 << 20) as disk:
        inside = disk.path(folder)
        configured(inside, who)
        shutil.copy2(large / "master.key", inside)

        def cloister(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                disk.inside(who.python, "-m", "cloister.cli.main", *words),
                env=who.environment(),
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )

        full = cloister(*restore_words(large / "backup", folder))
        assert full.returncode == 69, full.stderr
        assert "cannot be used: database or disk is full" in full.stderr
        assert shutil.disk_usage(inside).total == 4 << 20
        served = cloister("platform", "serve", "--dir", str(folder))
        assert served.returncode == 69, served.stderr
        assert "there is no store in" in served.stderr
        # There is room for a smaller one, of which nothing is in the way.
        (inside / "master.key").write_bytes(bytes.fromhex(FACTS["master_key"]))
        fine = cloister(*restore_words(vector(1), folder), "--json")
        assert fine.returncode == 0, fine.stderr
        assert json.loads(fine.stdout)["schema"] == 1


def wait_until(is_so: Callable[[], bool]) -> None:
    """Looks again until it is so."""
    end = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
