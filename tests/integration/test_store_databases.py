"""The store on SQLite and on PostgreSQL: the same promises, and two platforms on one database."""

import concurrent.futures
import dataclasses
import pathlib
import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select
from tests.support import postgresql
from tests.support.guide import ROOT
from tests.support.local_run import Somebody
from tests.support.platform_server import serving
from tests.support.platform_world import World, make_world

from cloister.errors import CloisterError, ConfigError, MissingInput, ReleaseRefused, StoreError
from cloister.platform import database as databases
from cloister.platform.api_keys import ApiKeys
from cloister.platform.changes import Changes
from cloister.platform.engines import database_url
from cloister.platform.owner import Owner
from cloister.platform.registry import Registry
from cloister.platform.tables import Release
from cloister.platform.tokens import OWNER, Tokens
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import Variables

RACES = 30
MEET_SECONDS = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    yield from postgresql.running()


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[World]:
    # SQLite's tests run where PostgreSQL is not installed.
    is_file = request.param == "sqlite"
    url = None if is_file else request.getfixturevalue("server").database()
    made = make_world(tmp_path, url=url)
    yield made
    made.database.close()


def address(world: World) -> str:
    """Of the world's database; nothing for SQLite."""
    url = world.database.engine.url
    is_file = url.get_backend_name() == "sqlite"
    return "" if is_file else url.render_as_string(hide_password=False)


def reopened(world: World, trust_class: TrustClass = TrustClass.DEVELOPMENT) -> databases.Database:
    url = address(world)
    return databases.open_existing(
        world.database.directory, trust_class, url=database_url(url) if url else None
    )


def test_an_enclave_is_provisioned_and_told_of_changes(world: World) -> None:
    challenge = world.platform.issue_challenge(world.uuid)
    first = world.open(
        world.platform.provision(world.uuid, world.boot.document(challenge)), challenge
    )
    Variables(world.database, world.uuid).set("RAW", bytes(range(1, 256)), secret=False)
    key = world.keys.create("client", scopes=[f"enclave:{world.uuid}"])
    newer = world.platform.newer_bundle(world.uuid, first["version"])
    assert newer is not None
    second = world.open(newer, challenge)
    assert second["version"] == first["version"] + 2
    assert second["env"] == [("RAW", bytes(range(1, 256)), False)]
    assert [one[0] for one in second["api_keys"]] == [key.record.id]
    with pytest.raises(ReleaseRefused, match="used before"):
        world.platform.provision(world.uuid, world.boot.document(challenge))


def test_class_and_master_key_are_checked(world: World, tmp_path: pathlib.Path) -> None:
    reopened(world).close()
    with pytest.raises(StoreError, match="of class `development`, expected `production`"):
        reopened(world, TrustClass.PRODUCTION)
    master = world.database.directory / "master.key"
    other = make_world(tmp_path / "other")
    master.write_bytes((other.store.directory / "master.key").read_bytes())
    with pytest.raises(StoreError, match="cannot be opened with this master key"):
        reopened(world)


def test_a_newer_schema_is_refused_and_left_alone(world: World) -> None:
    writing = world.database.engine.execution_options(cloister_writes=True)
    with writing.begin() as connection:
        connection.exec_driver_sql("UPDATE store SET schema_version = 99")
    with pytest.raises(StoreError, match="has schema 99, this program reads schema 3"):
        reopened(world)
    with world.database.engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT schema_version FROM store").scalar_one()
    assert found == 99


def test_a_failed_change_leaves_nothing_behind(world: World) -> None:
    before = (world.keys.all(), world.registry.enclave(world.uuid))
    with pytest.raises(ConfigError, match="unknown scope"):
        world.keys.create("a", scopes=["app", "everything"])
    with pytest.raises(MissingInput):
        world.registry.add_app(world.uuid, "orphan")
    assert (world.keys.all(), world.registry.enclave(world.uuid)) == before
    world.keys.create("a", scopes=["app"])
    assert len(world.keys.all()) == len(before[0]) + 1


def test_writers_in_several_threads_lose_nothing(world: World) -> None:
    errors: list[CloisterError] = []

    def make(number: int) -> None:
        database = reopened(world)
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


class Meeting(Changes):
    """Holds whoever has committed for the first time until all have."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._barrier = threading.Barrier(count)
        self._committed = threading.local()

    def announce(self) -> None:
        """Called after every commit, by the thread that wrote."""
        super().announce()
        if not hasattr(self._committed, "once"):
            self._committed.once = True
            self._barrier.wait(MEET_SECONDS)


def test_of_images_that_end_each_other_the_later_one_stays(world: World) -> None:
    """Two pipelines at one moment: with a transaction for each step, each ends the other's."""
    database = dataclasses.replace(world.database, changes=Meeting(2))
    images = [
        {str(pcr): bytes([number, pcr + 1]).hex() * 24 for pcr in range(3)} for number in b"ab"
    ]

    def deploy(pcrs: dict[str, str]) -> None:
        Owner(database).add_deployment(world.uuid, pcrs, ends_others=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for deployed in [pool.submit(deploy, pcrs) for pcrs in images]:
            deployed.result()
    owner = Owner(world.database)
    added = [one["subject"] for one in owner.activity(limit=10) if one["kind"] == "deployment.add"]
    found = {one["id"]: one for one in owner.deployments(world.uuid)}
    assert {found[one]["pcrs"]["0"] for one in added[:2]} == {pcrs["0"] for pcrs in images}
    assert added[2] == world.deployment
    assert [found[one]["active"] for one in added] == [True, False, False]  # newest first
    # Without it, images stay beside each other.
    owner.add_deployment(world.uuid, found[added[1]]["pcrs"])
    found = {one["id"]: one for one in owner.deployments(world.uuid)}
    assert [found[one]["active"] for one in added] == [True, True, False]


def test_credentials_come_in_pages(world: World) -> None:
    """Of one millisecond, and of two."""
    tokens = Tokens(world.database, world.clock)
    for number in range(7):
        tokens.create("t", scopes=[OWNER])
        world.keys.create("k", scopes=["app"])
        world.clock.advance(seconds=number // 3)
    for all_of in (tokens.all, world.keys.all):
        pages = [all_of(limit=3)]
        while pages[-1]:
            pages.append(all_of(limit=3, after=pages[-1][-1].id))
        assert [len(page) for page in pages] == [3, 3, 1, 0]
        assert [one for page in pages for one in page] == all_of()


@pytest.mark.parametrize("text", ["0" * 16, "", "\0", "a\0b", "x" * 5000])
def test_an_id_that_is_none_is_not_found(world: World, text: str) -> None:
    """PostgreSQL takes no NUL: that must not look like a store that fails."""
    tokens = Tokens(world.database, world.clock)
    for call in (
        lambda: tokens.all(after=text),
        lambda: tokens.revoke(text),
        lambda: world.keys.all(after=text),
        lambda: world.keys.revoke(text),
    ):
        with pytest.raises(MissingInput, match="with this id"):
            call()
    made = tokens.create("t", scopes=[OWNER])
    assert tokens.revoke(made.record.id).revoked is not None


def test_t08_a_challenge_is_used_once_by_two_platforms_on_one_store(world: World) -> None:
    arguments = [
        str(world.database.directory),
        address(world),
        str(world.root_dir / "nsm-root.pem"),
        str(world.uuid),
        world.clock().isoformat(),
    ]
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.provision_racer", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers: list[list[str]] = []
    try:
        assert [heard(racer) for racer in racers] == ["ready", "ready"]
        for number in range(RACES):
            document = world.boot.document(world.platform.issue_challenge(world.uuid))
            # Whoever is told first has the better start: each is, half of the time.
            order = racers if number % 2 else racers[::-1]
            for racer in order:
                tell(racer, document)
            answers.append([heard(racer) for racer in racers])
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    for pair in answers:
        assert Counter(pair) == {"released": 1, "the challenge was used before": 1}
    assert len(answers) == RACES
    with world.database.reading() as session:
        released = session.scalars(select(Release.id).where(Release.released)).all()
    assert len(released) == RACES


def tell(racer: subprocess.Popen[str], document: bytes) -> None:
    """Gives a racer a document."""
    assert racer.stdin is not None
    racer.stdin.write(document.hex() + "\n")
    racer.stdin.flush()


def heard(racer: subprocess.Popen[str]) -> str:
    """The next line of a racer."""
    assert racer.stdout is not None
    return racer.stdout.readline().rstrip("\n")


def test_a_database_that_goes_away_and_comes_back(
    server: postgresql.Server, tmp_path: pathlib.Path
) -> None:
    world = make_world(tmp_path, url=server.database())
    try:
        world.keys.create("before", scopes=["app"])
        server.stop()
        try:
            with pytest.raises(StoreError, match="cannot be used"):
                world.keys.create("lost", scopes=["app"])
            with pytest.raises(StoreError, match="cannot be used") as caught:
                world.keys.all()
            assert "postgresql://cloister" in caught.value.message
        finally:
            server.start()
        assert [key.name for key in world.keys.all()] == ["before"]
        world.keys.create("after", scopes=["app"])
        assert {key.name for key in world.keys.all()} == {"before", "after"}
        record = world.registry.enclave(world.uuid)
        assert record is not None
        assert record.bundle_version == 3
    finally:
        world.database.close()


def test_two_servers_on_one_database_that_goes_away_and_comes_back(
    server: postgresql.Server, tmp_path: pathlib.Path
) -> None:
    who, url = Somebody(home=tmp_path), server.database()
    with serving(who, tmp_path / "one", "--database-url", url) as one:
        # The second has the master key of the first, as the guide says.
        (tmp_path / "two").mkdir(mode=0o700)
        shutil.copy2(one.folder / "master.key", tmp_path / "two" / "master.key")
        with serving(who, tmp_path / "two", "--database-url", url) as two:
            app = uuid.UUID(one.made["app_uuid"])
            assert two.made["app_uuid"] == one.made["app_uuid"]
            made = one.owner().create_api_key(app, "k", scopes=["app"], not_after=None)
            assert [key["id"] for key in two.owner(one.token).api_keys(app)] == [made["id"]]
            server.stop()
            try:
                for running in (one, two):
                    with pytest.raises(StoreError, match="cannot be used"):
                        running.client().send("DELETE", f"/v1/apps/{app}/api-keys/{made['id']}")
                    with pytest.raises(StoreError):
                        running.client().get("/health", deadline_s=1)
            finally:
                server.start()
            assert two.owner().api_keys(app)[0]["state"] == "active"
            assert two.owner().revoke_api_key(app, made["id"])["state"] == "revoked"
            assert one.owner().api_keys(app)[0]["state"] == "revoked"
            assert (one.end(), two.end()) == (0, 0)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("mysql://user:hidden@host/db", "does not begin with postgresql://"),
        ("postgresql://user:hidden@host", "does not name a database"),
        ("hidden", "cannot be read"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_password(
    address: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        database_url(address)
    assert "hidden" not in str(caught.value)
