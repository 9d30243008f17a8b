"""What breaks around a platform, as it breaks: processes, signals, a stopped PostgreSQL, a disk.

Each test counts before and after: what was confirmed is there, and nothing that was not asked for.
Beside them: a platform on SQLite that is killed while it writes (``test_platform_server.py``), one
challenge at two platforms (``test_store_databases.py``), restores that are killed
(``test_restore_faults.py``).
"""

import base64
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Self

import pytest
import requests
from sqlalchemy import create_engine
from tests.support import postgresql
from tests.support.host_process import HostProcess, Project, descendants, hosting
from tests.support.local_run import Somebody, wait_until
from tests.support.platform_server import SERVE, PlatformServer, serving
from tests.support.platform_world import PCRS, ManualClock, SimulatedBoot
from tests.support.small_disk import SmallDisk

from cloister.errors import CloisterError, StoreError
from cloister.platform.engines import database_url
from cloister.platform.remote import RemotePlatform

WRITES = 15  # confirmed ones, before something breaks
MANY = 500  # writes that do not fit onto the small disk
PROVISIONED = "SELECT count(*) FROM releases WHERE released AND reason = 'provisioned'"


@pytest.fixture(scope="module")
def database() -> Iterator[postgresql.Server]:
    yield from postgresql.running()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("platform") / "state"
    with serving(who, folder, "--class", "development") as server:
        yield server


@pytest.fixture(scope="module")
def project(platform: PlatformServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(platform, tmp_path_factory.mktemp("project"), "hello")
    made.build("one")
    return made


@pytest.fixture
def host(project: Project, tmp_path: pathlib.Path) -> Iterator[HostProcess]:
    """A host of the project's enclave that runs the one image."""
    made = HostProcess.make(project, tmp_path / "host")
    made.add("one")
    deployment = project.deploy("one")
    try:
        with hosting(made):
            made.wait_for(deployment)
            yield made
    finally:
        project.end(deployment)


class Clients:
    """Somebody who asks an enclave without a pause; every answer is kept."""

    def __init__(self, host: HostProcess, key: str) -> None:
        self._host, self._key = host, key
        self._url = f"{host.url}/"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[int | str] = []

    def status(self, key: str | None = None) -> int:
        """The answer to one request, with this key or another."""
        headers = {"api-key": key or self._key}
        got = requests.get(self._url, verify=self._host.ca_file, headers=headers, timeout=20)
        return got.status_code

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Waits for so many more answers."""
        wanted = len(self.answers) + more
        wait_until(lambda: len(self.answers) >= wanted, 60, "answers")

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self.status())
            except requests.RequestException as problem:
                self.answers.append(repr(problem))


def count(store: pathlib.Path | str, query: str) -> int:
    """A number from a store, past the platform: a folder, or PostgreSQL's address."""
    if isinstance(store, pathlib.Path):
        with contextlib.closing(sqlite3.connect(store / "store.sqlite3")) as connection:
            return int(connection.execute(query).fetchone()[0])
    engine = create_engine(database_url(store))
    try:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())
    finally:
        engine.dispose()


def test_a_platform_that_is_down_while_an_enclave_runs_and_while_it_boots(
    host: HostProcess, project: Project, platform: PlatformServer
) -> None:
    key = project.api_key()
    assert host.process is not None
    clients = Clients(host, key)
    wait_until(lambda: clients.status() == 200, 20, "the key")
    before = count(platform.folder, PROVISIONED)
    platform.end(signal.SIGKILL)
    try:
        # What runs serves on.
        with clients:
            clients.wait_for(20)
        assert set(clients.answers) == {200}
        # What boots waits, and is given nothing.
        (launcher, *_) = descendants(host.process.pid)
        boots = host.metric("cloister_host_boots_total")
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: _is_provisioning(host), 60, "the boot")
        assert host.get("/health")[0] == 503
        assert host.metric("cloister_host_boots_total") == boots
        assert count(platform.folder, PROVISIONED) == before
    finally:
        platform.start()
    wait_until(lambda: host.metric("cloister_host_boots_total") == boots + 1, 90, "the boot's end")
    assert Clients(host, key).status() == 200
    assert count(platform.folder, PROVISIONED) == before + 1
    assert host.end() == 0


def _is_provisioning(host: HostProcess) -> bool:
    assert host.process is not None
    is_up = len(descendants(host.process.pid)) > 1
    return is_up and host.health()["state"] in {"starting", "provisioning"}


@pytest.mark.parametrize("boots_after", [False, True], ids=["boot-in-backup", "boot-after-backup"])
def test_a_restore_from_a_backup_that_is_older_than_the_running_enclave(
    host: HostProcess,
    project: Project,
    platform: PlatformServer,
    tmp_path: pathlib.Path,
    *,
    boots_after: bool,
) -> None:
    who, deployment = project.who, str(host.health()["deployment"])
    kept = who.json("key", "create", "--name", "kept", folder=project.folder)
    words = ("platform", "backup", str(tmp_path / "backup"), "--dir", str(platform.folder))
    who.run(*words, folder=tmp_path)
    lost = [project.api_key() for _ in range(3)]
    if boots_after:
        host.send(signal.SIGHUP)
        wait_until(lambda: host.metric("cloister_host_boots_total") == 2, 90, "another boot")
        host.wait_for(deployment)
    clients = Clients(host, kept["api_key"])
    wait_until(lambda: clients.status(lost[-1]) == 200, 20, "the newest key")
    before = platform.owner().enclave(uuid.UUID(project.uuid))["bundle_version"]
    with clients:
        clients.wait_for(5)
        platform.end(signal.SIGKILL)
        restored = tmp_path / "restored"
        restored.mkdir(mode=0o700)
        shutil.copy2(platform.folder / "platform.toml", restored)
        shutil.copytree(platform.folder / "tls", restored / "tls")
        key = str(platform.folder / "master.key")
        words = ("platform", "restore", str(tmp_path / "backup"), "--dir", str(restored))
        who.run(*words, "--master-key", key, folder=tmp_path)
        again = PlatformServer(who, restored, platform.made)
        again.start()
        try:
            # Keys of after the backup end, for the platform does not know them.
            wait_until(lambda: clients.status(lost[-1]) == 401, 60, "the restored bundle")
            assert [clients.status(one) for one in lost] == [401] * 3
            assert set(clients.answers) == {200}
            clients.wait_for(5)
            # What is changed from here on arrives.
            who.run("key", "revoke", kept["id"], folder=project.folder)
            wait_until(lambda: clients.status() == 401, 60, "the revocation")
            boots = host.metric("cloister_host_boots_total")
            assert boots == 1 + boots_after, "the enclave was started again"
            enclave = again.owner().enclave(uuid.UUID(project.uuid))
            assert enclave["bundle_version"] > before
            names = [one["name"] for one in again.owner().api_keys(uuid.UUID(enclave["app_uuid"]))]
            assert names.count("kept") >= 1
            assert count(restored, "SELECT count(*) FROM api_keys") == count(
                platform.folder, "SELECT count(*) FROM api_keys"
            ) - len(lost)
            assert host.end() == 0
        finally:
            again.end(signal.SIGKILL)
            platform.start()


@dataclasses.dataclass
class Writers:
    """Threads that make API keys at platforms, as fast as they are let, and count what was said."""

    app: uuid.UUID
    confirmed: list[str] = dataclasses.field(default_factory=list)
    by: set[str] = dataclasses.field(default_factory=set)
    failures: int = 0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    _threads: list[threading.Thread] = dataclasses.field(default_factory=list)

    def at(self, server: PlatformServer, token: str | None = None) -> None:
        """Starts two of them at a platform."""
        for _ in range(2):
            thread = threading.Thread(target=self._write, args=(server, token))
            self._threads.append(thread)
            thread.start()

    def wait_for(self, more: int) -> None:
        """Waits for so many more keys."""
        wanted = len(self.confirmed) + more
        wait_until(lambda: len(self.confirmed) >= wanted, 60, "keys")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, server: PlatformServer, token: str | None) -> None:
        client = server.client(token)
        body = {"name": "k", "scopes": ["app"]}
        while not self._stop.is_set():
            try:
                made = client.send("POST", f"/v1/apps/{self.app}/api-keys", body, deadline_s=5)
            except CloisterError:
                with self._lock:
                    self.failures += 1
                self._stop.wait(0.1)
            else:
                self.confirmed.append(made["id"])
                self.by.add(server.url)


def assert_nothing_lost(
    server: PlatformServer, token: str | None, enclave: uuid.UUID, writers: Writers, store: str
) -> None:
    """What was confirmed is there, nothing else but what was attempted, and none of it by half."""
    kept = {one["id"] for one in server.owner(token).api_keys(writers.app)}
    assert set(writers.confirmed) <= kept
    assert len(kept) <= len(writers.confirmed) + writers.failures
    assert count(store, "SELECT count(*) FROM api_keys") == len(kept)
    # Each key raised the version, and is in the activity, in its own transaction.
    assert server.owner(token).enclave(enclave)["bundle_version"] == 1 + len(kept)
    made = "SELECT count(*) FROM activity WHERE kind = 'api-key.create'"
    assert count(store, made) == len(kept)


def test_a_database_that_is_down_while_platforms_write_to_it(
    database: postgresql.Server, tmp_path: pathlib.Path
) -> None:
    who, url = Somebody(home=tmp_path), database.database()
    with serving(who, tmp_path / "state", "--database-url", url) as server:
        app = uuid.UUID(server.made["app_uuid"])
        enclave = uuid.UUID(server.owner().add_enclave(app, "hello")["uuid"])
        assert server.process is not None
        pid = server.process.pid
        with Writers(app) as writers:
            writers.at(server)
            writers.wait_for(WRITES)
            database.stop()
            try:
                said = len(writers.confirmed) + 2  # answers that were under way, one a thread
                failures = writers.failures
                wait_until(lambda: writers.failures > failures + 4, 60, "failures")
                with pytest.raises(StoreError, match="cannot be used"):
                    server.client().get("/v1/apps", deadline_s=1)
                assert len(writers.confirmed) <= said
            finally:
                database.start()
            writers.wait_for(WRITES)
        assert_nothing_lost(server, None, enclave, writers, url)
        assert server.process.pid == pid
        assert server.end() == 0


def test_a_database_that_is_down_releases_nothing(
    database: postgresql.Server, tmp_path: pathlib.Path
) -> None:
    who, url = Somebody(home=tmp_path), database.database()
    words = ("--class", "development", "--database-url", url)
    with serving(who, tmp_path / "state", *words) as server:
        owner = server.owner()
        enclave = uuid.UUID(owner.add_enclave(uuid.UUID(server.made["app_uuid"]), "hello")["uuid"])
        owner.add_deployment(enclave, {str(index): PCRS[index].hex() for index in (0, 1, 2)})
        scopes = [f"relay:{enclave}"]
        token = str(owner.create_token("host", scopes=scopes, not_after=None)["token"])
        relay = RemotePlatform(server.client(token))
        boot = SimulatedBoot(
            ManualClock(dt.datetime.now(dt.UTC)), root_dir=who.home / "cloister" / "dev-ca"
        )
        document = boot.document(relay.issue_challenge(enclave))
        database.stop()
        try:
            with pytest.raises(StoreError, match="cannot be used"):
                relay.provision(enclave, document)
            with pytest.raises(StoreError, match="cannot be used"):
                relay.issue_challenge(enclave)
        finally:
            database.start()
        assert count(url, PROVISIONED) == 0
        assert count(url, "SELECT count(*) FROM boots") == 0
        # Nor was the challenge used up.
        assert relay.provision(enclave, document)
        assert count(url, PROVISIONED) == 1
        assert count(url, "SELECT count(*) FROM boots") == 1
        assert server.end() == 0


def test_two_platforms_on_one_database_of_which_one_is_killed_while_both_write(
    database: postgresql.Server, tmp_path: pathlib.Path
) -> None:
    who, url = Somebody(home=tmp_path), database.database()
    with serving(who, tmp_path / "one", "--database-url", url) as one:
        (tmp_path / "two").mkdir(mode=0o700)
        shutil.copy2(one.folder / "master.key", tmp_path / "two" / "master.key")
        with serving(who, tmp_path / "two", "--database-url", url) as two:
            app = uuid.UUID(one.made["app_uuid"])
            enclave = uuid.UUID(one.owner().add_enclave(app, "hello")["uuid"])
            with Writers(app) as writers:
                writers.at(one)
                writers.at(two, one.token)
                wait_until(lambda: writers.by == {one.url, two.url}, 60, "keys of both")
                writers.wait_for(WRITES)
                two.end(signal.SIGKILL)
                writers.wait_for(WRITES)  # the other waits for no lock of the one that was killed
                two.start()
                writers.wait_for(WRITES)
            for server in (one, two):
                assert_nothing_lost(server, one.token, enclave, writers, url)
            assert (one.end(), two.end()) == (0, 0)


def test_a_full_disk_is_said_nothing_is_half_done_and_room_is_enough_to_go_on(
    tmp_path: pathlib.Path,
) -> None:
    who, folder = Somebody(home=tmp_path), tmp_path / "state"
    made = PlatformServer.make(who, folder)
    with SmallDisk(folder, 4 << 20) as disk:
        inside = disk.path(folder)
        # What is below the disk is moved onto it.
        shutil.copytree(folder, inside, dirs_exist_ok=True)
        filler = inside / "filler"
        filler.write_bytes(bytes(2 << 20))
        process = subprocess.Popen(
            disk.inside(who.python, *SERVE, "--dir", str(folder)),
            env=who.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            owner, client = made.owner(), made.client()
            enclave = uuid.UUID(owner.add_enclave(uuid.UUID(made.made["app_uuid"]), "e")["uuid"])
            value = base64.b64encode(b"x" * 30_000).decode()

            def set_one(name: str) -> None:
                one = {"name": name, "value": value, "secret": False}
                client.send("PUT", f"/v1/enclaves/{enclave}/variables", {"variables": [one]})

            def counted() -> tuple[int, int]:
                return len(owner.variables(enclave)), owner.enclave(enclave)["bundle_version"]

            # The same one over and over grows the journal, and not the number of variables.
            assert counted() == (0, 1)
            done = until_refused(lambda: set_one("V"))
            assert done > 0
            assert shutil.disk_usage(inside).free < 4 * len(value)
            assert counted() == (1, 1 + done)
            with pytest.raises(StoreError, match="cannot be used"):
                set_one("MORE")
            assert counted() == (1, 1 + done)
            filler.unlink()
            set_one("MORE")
            assert counted() == (2, 2 + done)
        finally:
            process.terminate()
            process.communicate(timeout=30)
        # SQLite would follow the path from outside to the folder below the disk.
        script = (
            "import sqlite3, sys; store = sqlite3.connect(sys.argv[1]);"
            "print(*[store.execute(one).fetchone()[0] for one in sys.argv[2:]])"
        )
        queries = ("PRAGMA integrity_check", "SELECT count(*) FROM variables")
        read = disk.inside(who.python, "-c", script, str(folder / "store.sqlite3"), *queries)
        assert subprocess.check_output(read, text=True) == "ok 2\n"


def until_refused(write: Callable[[], None]) -> int:
    """Writes until the store is refused one, and says how many it took."""
    for number in range(MANY):
        try:
            write()
        except StoreError:
            return number
    raise AssertionError("the disk was never full")
