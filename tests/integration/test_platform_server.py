"""The platform's server as a process: who may ask, how much, and what becomes of it."""

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import pathlib
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from tests.support.local_run import Somebody
from tests.support.object_heads import image_of, name_of, proof_of
from tests.support.platform_server import PlatformServer, serving
from tests.support.platform_world import PCRS, ManualClock, SimulatedBoot

from cloister import crypto
from cloister.errors import (
    CloisterError,
    ConfigError,
    InputError,
    MissingInput,
    PermissionRefused,
    ReleaseRefused,
    StoreError,
    TransportError,
)
from cloister.platform.clock import to_ms
from cloister.platform.https import PlatformClient
from cloister.platform.remote import RemotePlatform

BOOT_KEY = b"\x11" * 32
PATIENCE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Released:
    """An enclave that a server released to."""

    server: PlatformServer
    app: uuid.UUID
    enclave: uuid.UUID
    token: str
    boot: SimulatedBoot
    challenge: bytes
    sealed: bytes

    def open(self, sealed: bytes, keys: list[str] | None = None) -> dict[str, object]:
        """Opens a bundle as an enclave does that knows these service keys, or all in use."""
        keys = keys or self.server.owner().service_keys()
        opened: dict[str, object] = self.boot.key.open_bundle(
            sealed,
            service_keys=[bytes.fromhex(key) for key in keys],
            enclave=str(self.enclave),
            challenge=self.challenge,
            pcr0=PCRS[0],
            minimum_version=0,
            now_ms=to_ms(dt.datetime.now(dt.UTC)),
        )
        return opened


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    with serving(who, tmp_path_factory.mktemp("platform") / "state") as server:
        yield server


@pytest.fixture(scope="module")
def app(platform: PlatformServer) -> uuid.UUID:
    return uuid.UUID(platform.made["app_uuid"])


@pytest.fixture(scope="module")
def enclave(platform: PlatformServer, app: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(platform.owner().add_enclave(app, "hello")["uuid"])


def token(platform: PlatformServer, *scopes: str) -> str:
    made = platform.owner().create_token("test", scopes=list(scopes), not_after=None)
    return str(made["token"])


def test_a_platform_is_made_in_less_than_a_minute(tmp_path: pathlib.Path) -> None:
    who = Somebody(home=tmp_path)
    begun = time.monotonic()
    with serving(who, tmp_path / "state") as server:
        assert server.owner().apps()[0]["name"] == "default"
        assert time.monotonic() - begun < 60
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in server.folder.rglob("*")
            if path.is_file() and path.suffix != ".pem"
        }
        assert {"master.key", "platform.toml", "store.sqlite3", "ca.key"} <= modes.keys()
        assert set(modes.values()) == {0o600}
        again = who.json("platform", "init", "--dir", str(server.folder), folder=tmp_path)
        assert again["app_uuid"] == server.made["app_uuid"]
        assert again["service_key"] == server.made["service_key"]
        assert len(server.owner(again["token"]).tokens()) == 2
        assert server.end() == 0


def test_what_a_token_may(platform: PlatformServer, app: uuid.UUID, enclave: uuid.UUID) -> None:
    other_app = uuid.UUID(platform.owner().add_app("other")["uuid"])
    other = uuid.UUID(platform.owner().add_enclave(other_app, "other")["uuid"])
    reads = platform.owner(token(platform, f"read:{app}"))
    deploys = platform.owner(token(platform, f"deploy:{app}"))
    manages = platform.owner(token(platform, f"manage:{app}"))
    pcrs = {str(index): "ab" * 48 for index in (0, 1, 2)}
    platform.owner().set_variables(
        enclave, [{"name": "A", "value": base64.b64encode(b"one").decode(), "secret": False}]
    )
    for owner in (reads, deploys, manages):
        assert [one["name"] for one in owner.apps()] == ["default"]
        assert owner.enclave(enclave)["name"] == "hello"
        assert [one["name"] for one in owner.variables(enclave)] == ["A"]
        for refused in (
            lambda owner=owner: owner.enclave(other),
            lambda owner=owner: owner.enclave(uuid.uuid4()),
            lambda owner=owner: owner.add_app("more"),
            lambda owner=owner: owner.tokens(),
            lambda owner=owner: owner.activity(limit=10),
            lambda owner=owner: owner.create_token("t", scopes=["owner"], not_after=None),
            lambda owner=owner: owner.set_variables(other, []),
        ):
            with pytest.raises(PermissionRefused, match="no scope for this"):
                refused()
    assert [one["value"] for one in reads.variables(enclave)] == [None]
    assert manages.variable(enclave, "A")["value"] == base64.b64encode(b"one").decode()
    with pytest.raises(PermissionRefused):
        deploys.variable(enclave, "A")
    with pytest.raises(PermissionRefused):
        reads.add_deployment(enclave, pcrs)
    made = deploys.add_deployment(enclave, pcrs)
    assert deploys.deployments(enclave)[-1]["active"]
    deploys.end_deployment(enclave, made["id"])
    with pytest.raises(PermissionRefused):
        deploys.create_api_key(app, "k", scopes=["app"], not_after=None)
    assert manages.create_api_key(app, "k", scopes=["app"], not_after=None)["state"] == "active"


def test_an_enclave_is_deleted_by_its_name_or_its_uuid(
    platform: PlatformServer, app: uuid.UUID, tmp_path: pathlib.Path
) -> None:
    first, second = (platform.owner().add_enclave(app, "twice")["uuid"] for _ in range(2))
    asking, delete = platform.asking(), ("platform", "enclave", "delete")
    who = dataclasses.replace(asking, more=asking.more | {"EV_APP_UUID": str(app)})
    _, said = who.run(*delete, "--yes", "twice", folder=tmp_path, status=2)
    assert "2 enclaves are named `twice`" in said
    _, said = who.run(*delete, first, folder=tmp_path, status=2)
    assert "--yes says that it is not needed any more" in said
    assert {first, second} <= {one["uuid"] for one in platform.owner().enclaves(app)}
    out, _ = who.run(*delete, "--yes", first, "--json", folder=tmp_path)
    assert json.loads(out) == {"uuid": first, "name": "twice"}
    out, _ = who.run(*delete, "--yes", "twice", folder=tmp_path)
    assert out == f"`twice` ({second}) is deleted\n"
    assert not {first, second} & {one["uuid"] for one in platform.owner().enclaves(app)}


def test_an_enclave_of_the_local_store_is_deleted_too(tmp_path: pathlib.Path) -> None:
    who = Somebody(home=tmp_path / "home")
    out, _ = who.run("init", "hello", "--json", folder=tmp_path)
    who.run("platform", "enclave", "delete", "--yes", "hello", folder=tmp_path)
    _, said = who.run("init", "hello", "--force", folder=tmp_path, status=78)
    assert f"`{json.loads(out)['uuid']}` was deleted" in said
    (tmp_path / "enclave.toml").unlink()
    who.run("init", "hello", folder=tmp_path)


def test_limits_are_set_over_the_network(platform: PlatformServer, enclave: uuid.UUID) -> None:
    owner = platform.owner()
    assert owner.set_max_boots(enclave, 3)["max_boots"] == 3
    assert owner.set_max_boots(enclave, None)["max_boots"] is None
    with pytest.raises(ConfigError, match="an enclave runs 1 to"):
        owner.set_max_boots(enclave, 0)
    pcrs = {str(index): "cd" * 48 for index in (0, 1, 2)}
    end = dt.datetime(2999, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert owner.add_deployment(enclave, pcrs, until=end)["until"] == "2999-01-02T03:04:05Z"
    with pytest.raises(ConfigError, match="decided when it is registered"):
        owner.set_accepts_debug(enclave, accepts=True)
    assert owner.enclave(enclave)["accepts_debug"] is False


def test_a_host_may_relay_for_its_enclave_and_nothing_else(
    platform: PlatformServer, app: uuid.UUID, enclave: uuid.UUID
) -> None:
    host_token = token(platform, f"relay:{enclave}")
    host = RemotePlatform(platform.client(host_token))
    assert len(host.issue_challenge(enclave)) == 32
    host.record_event(enclave, "process.exit", "status 1\x1b[31m")
    with pytest.raises(ReleaseRefused, match="was not provisioned"):
        host.newer_bundle(enclave, 0, boot_key=BOOT_KEY)
    with pytest.raises(ReleaseRefused, match=r"no active deployment|is refused"):
        host.provision(enclave, b"not a document")
    other = uuid.UUID(platform.owner().add_enclave(app, "elsewhere")["uuid"])
    for refused in (
        lambda: host.issue_challenge(other),
        lambda: host.provision(other, b"x"),
        lambda: host.newer_bundle(other, 0, boot_key=BOOT_KEY),
        lambda: host.record_event(other, "a", "b"),
        lambda: platform.owner(host_token).enclave(enclave),
        lambda: platform.owner(host_token).app_keys(app),
        lambda: platform.owner(host_token).apps(),
        # A host with the owner's token is a mistake, and it is found at once.
        lambda: RemotePlatform(platform.client()).issue_challenge(enclave),
    ):
        with pytest.raises(PermissionRefused):
            refused()
    # It is told what it has, not to ask for what it may not ask.
    with pytest.raises(PermissionRefused) as caught:
        platform.owner(host_token).apps()
    assert f"the token has relay:{enclave};" in str(caught.value.hint)
    events = platform.client().get(f"/v1/enclaves/{enclave}/events")
    assert (events[0]["kind"], events[0]["message"]) == ("process.exit", "status 1\ufffd[31m")


def test_a_token_that_ended_is_refused_at_the_next_request(platform: PlatformServer) -> None:
    made = platform.owner().create_token("short", scopes=["owner"], not_after=None)
    owner = platform.owner(made["token"])
    assert owner.apps()
    platform.owner().revoke_token(made["id"])
    with pytest.raises(PermissionRefused, match="expired or revoked"):
        owner.apps()


@pytest.mark.parametrize("change", ["last", "id", "prefix", "empty"])
def test_a_token_that_is_almost_right_is_refused(platform: PlatformServer, change: str) -> None:
    wrong = {
        "last": platform.token[:-1] + ("A" if platform.token[-1] != "A" else "B"),
        "id": "cp_" + "0" * 16 + platform.token[19:],
        "prefix": "ck" + platform.token[2:],
        "empty": "x",
    }[change]
    assert platform.owner().apps()
    with pytest.raises(PermissionRefused, match="unknown"):
        platform.owner(wrong).apps()


def test_what_is_wrong_is_said_without_what_was_sent(platform: PlatformServer) -> None:
    client = platform.client()
    for body in (
        {"name": {"secret-mark": 1}},
        {"name": "ok", "secret mark": 1},
        ["secret-mark"],
        5,
    ):
        with pytest.raises(InputError) as caught:
            client.send("POST", "/v1/apps", body)
        assert "mark" not in caught.value.message
    with pytest.raises(ConfigError, match="not a DNS label"):
        client.send("POST", "/v1/apps", {"name": "Upper"})
    with pytest.raises(ConfigError, match="there is an app `default` already"):
        client.send("POST", "/v1/apps", {"name": "default"})
    with pytest.raises(MissingInput, match="there is no app"):
        client.get(f"/v1/apps/{uuid.uuid4()}")
    with pytest.raises(InputError, match="limit"):
        client.get("/v1/activity", limit=100_000)


def test_a_long_body_is_refused_before_it_is_read(platform: PlatformServer) -> None:
    fixed = (
        f"POST /v1/apps HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {platform.token}\r\n"
        "content-type: application/json\r\n"
    )
    announced = platform.raw(f"{fixed}content-length: 99999999\r\n\r\n".encode())
    assert announced.startswith(b"HTTP/1.1 413 ")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = platform.raw(f"{fixed}transfer-encoding: chunked\r\n\r\n".encode() + chunk * 17)
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert json.loads(chunked.partition(b"\r\n\r\n")[2])["error"]["code"] == "InputError"
    smallest = f"{fixed}connection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    assert platform.raw(smallest.encode()).startswith(b"HTTP/1.1 400 ")


def test_only_the_pinned_authority_is_believed(
    platform: PlatformServer, tmp_path: pathlib.Path
) -> None:
    who = Somebody(home=tmp_path)
    stranger = PlatformServer.make(who, tmp_path / "state")
    for ca_file in (stranger.ca_file, None):
        client = PlatformClient(platform.url, platform.token, ca_file=ca_file)
        with pytest.raises(TransportError, match="not of an authority that is believed"):
            client.get("/v1/apps", deadline_s=3)
    with pytest.raises(ConfigError, match="https"):
        PlatformClient("http://127.0.0.1:1", platform.token)


def test_the_page_of_the_api_needs_nothing_from_elsewhere(platform: PlatformServer) -> None:
    answer = platform.raw(b"GET /docs HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").decode()
    head, _, page = answer.partition("\r\n\r\n")
    assert "default-src 'none'" in head
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    raw = platform.raw(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    document = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert {"/v1/provision", "/v1/bundle", "/v1/tokens", "/health"} <= document["paths"].keys()
    for path in document["paths"]:
        assert path in page


def test_the_access_log_has_no_secret_and_no_address(
    platform: PlatformServer, app: uuid.UUID
) -> None:
    made = platform.owner().create_api_key(app, "logged", scopes=["app"], not_after=None)
    with pytest.raises(InputError):
        platform.client().get(f"/v1/apps/{platform.token}")
    platform.raw(
        f"GET /{platform.token}?key={platform.token} HTTP/1.1\r\nhost: {platform.token}\r\n"
        "connection: close\r\n\r\n".encode()
    )
    written = platform.log.read_text()
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert any(line["call"] == "/v1/apps/{app}/api-keys" for line in lines)
    assert any(line["call"] is None and line["status"] == 404 for line in lines)
    assert not any("127.0.0.1" in line.values() for line in lines)
    for secret in (platform.token, platform.token[20:], made["api_key"]):
        assert secret not in written


def test_a_secret_reaches_the_store_as_a_ciphertext_only(
    platform: PlatformServer, app: uuid.UUID, enclave: uuid.UUID
) -> None:
    owner = platform.owner()
    clear = base64.b64encode(b"in clear").decode()
    with pytest.raises(ConfigError, match="not a ciphertext"):
        owner.set_variables(enclave, [{"name": "S", "value": clear, "secret": True}])
    key = bytes.fromhex(owner.app(app)["public_key"])
    token_text = crypto.encrypt_literal(b"in clear", key).encode()
    before = owner.enclave(enclave)["bundle_version"]
    owner.set_variables(
        enclave,
        [{"name": "S", "value": base64.b64encode(token_text).decode(), "secret": True}],
    )
    assert owner.variable(enclave, "S")["value"] is None
    assert owner.enclave(enclave)["bundle_version"] == before + 1
    owner.delete_variable(enclave, "S")
    with pytest.raises(MissingInput):
        owner.delete_variable(enclave, "S")


def test_old_key_pairs_can_be_brought_and_new_data_keeps_to_p256(
    platform: PlatformServer,
) -> None:
    owner = platform.owner()
    app = uuid.UUID(owner.add_app("old-data")["uuid"])
    public = owner.app(app)["public_key"]
    half = base64.b64encode((7).to_bytes(32, "big")).decode()
    made = owner.add_app_key(app, curve="secp256k1", private=half)
    # The point 7·G of secp256k1 (SEC 2, 2.4.1), as published with Bitcoin's curve.
    assert made["public"] == "025cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc"
    assert [one["curve"] for one in owner.app_keys(app)] == ["P-256", "secp256k1"]
    assert owner.app(app)["public_key"] == public
    for wrong in (b"", b"\0" * 32, b"\xff" * 32, b"x" * 31):
        with pytest.raises(ConfigError, match="private half"):
            owner.add_app_key(app, curve="P-256", private=base64.b64encode(wrong).decode())
    newer = owner.add_app_key(app)
    assert owner.app(app)["public_key"] == newer["public"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    """A development platform with an enclave that was released to."""
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("platform") / "state"
    with serving(who, folder, "--class", "development") as server:
        owner = server.owner()
        app = uuid.UUID(server.made["app_uuid"])
        enclave = uuid.UUID(owner.add_enclave(app, "hello")["uuid"])
        owner.add_deployment(enclave, {str(index): PCRS[index].hex() for index in (0, 1, 2)})
        made = owner.create_token("host", scopes=[f"relay:{enclave}"], not_after=None)
        clock = ManualClock(dt.datetime.now(dt.UTC))
        boot = SimulatedBoot(clock, root_dir=who.home / "cloister" / "dev-ca")
        host = RemotePlatform(server.client(made["token"]))
        challenge = host.issue_challenge(enclave)
        document = boot.document(challenge)
        sealed = host.provision(enclave, document)
        with pytest.raises(ReleaseRefused, match="used before"):
            host.provision(enclave, document)
        yield Released(server, app, enclave, made["token"], boot, challenge, sealed)


def test_t08_what_a_host_carries_is_for_the_boot_alone(released: Released) -> None:
    opened = released.open(released.sealed)
    assert opened["version"] >= 1
    for part in (b"api_keys", b"app_keys", str(released.enclave).encode()):
        assert part not in released.sealed
    altered = released.sealed[:-1] + bytes([released.sealed[-1] ^ 1])
    with pytest.raises(ValueError, match="bundle"):
        released.open(altered)


def test_t12_a_head_goes_over_the_network_and_comes_back_in_the_bundle(released: Released) -> None:
    host = RemotePlatform(released.server.client(released.token))
    opened = released.open(released.sealed)
    image, digest = image_of(released.boot.pcrs), hashlib.sha256(b"sealed").digest()
    name = name_of("tls", image)

    def record(version: int, digest: bytes, **changes: bytes) -> bool:
        proof = proof_of(
            secret=opened["sealing_secret"],
            image=image,
            enclave=released.enclave,
            name=name,
            version=version,
            digest=digest,
        )
        key = released.boot.key.public
        fields = {"boot_key": key, "sha256": digest, "proof": proof} | changes
        return host.record_object(released.enclave, name=name, version=version, **fields)

    with pytest.raises(ReleaseRefused, match="not proved by an enclave of this image"):
        record(1, digest, proof=bytes(32))
    assert record(1, digest)
    assert not record(1, bytes(32))
    sealed = host.newer_bundle(
        released.enclave, opened["version"], boot_key=released.boot.key.public
    )
    assert sealed is not None
    assert released.open(sealed)["objects"] == {name: (1, digest)}


def test_a_service_key_is_rotated(released: Released) -> None:
    owner = released.server.owner()
    (old,) = owner.service_keys()
    with pytest.raises(ConfigError, match="the only service key"):
        owner.retire_service_key(old)
    keys = owner.add_service_key()
    assert keys[0] == old
    assert owner.enclave(released.enclave)["service_keys"] == keys
    host = RemotePlatform(released.server.client(released.token))
    boot_key = released.boot.key.public
    before = host.newer_bundle(released.enclave, 0, boot_key=boot_key)
    assert before is not None
    assert released.open(before, [old])
    version = owner.enclave(released.enclave)["bundle_version"]
    assert owner.retire_service_key(old) == keys[1:]
    after = host.newer_bundle(released.enclave, version, boot_key=boot_key)
    assert after is not None
    assert released.open(after, keys[1:])
    with pytest.raises(ValueError, match="bundle"):
        released.open(after, [old])
    with pytest.raises(MissingInput):
        owner.retire_service_key(old)
    assert len(owner.add_service_key()) == 2
    assert len(owner.add_service_key()) == 3
    with pytest.raises(ConfigError, match="there are 3 service keys"):
        owner.add_service_key()


def test_a_stop_waits_for_no_idle_connection(tmp_path: pathlib.Path) -> None:
    with serving(Somebody(home=tmp_path), tmp_path / "state") as server:
        # An idle connection with TLS, which a client keeps in its pool, holds nothing up.
        owner = server.owner()
        assert owner.apps()
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < 5
        with pytest.raises(TransportError, match="cannot be reached"):
            server.client().get("/v1/apps", deadline_s=1)


def test_a_platform_killed_while_it_writes_loses_nothing_it_confirmed(
    tmp_path: pathlib.Path,
) -> None:
    with serving(Somebody(home=tmp_path), tmp_path / "state") as server:
        app = uuid.UUID(server.made["app_uuid"])
        enclave = uuid.UUID(server.owner().add_enclave(app, "hello")["uuid"])
        confirmed: list[str] = []
        attempts = 0
        for _ in range(3):
            stop = threading.Event()

            def write(stop: threading.Event = stop) -> None:
                nonlocal attempts
                client = server.client()
                body = {"name": "k", "scopes": ["app"]}
                while not stop.is_set():
                    attempts += 1
                    try:
                        made = client.send("POST", f"/v1/apps/{app}/api-keys", body, deadline_s=2)
                    except TransportError:
                        return
                    confirmed.append(made["id"])

            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            before, deadline = len(confirmed), time.monotonic() + 60
            try:
                while len(confirmed) < before + 15:
                    assert time.monotonic() < deadline
                    assert any(thread.is_alive() for thread in threads)
                    time.sleep(0.01)
                server.end(signal.SIGKILL)
            finally:
                stop.set()
                for thread in threads:
                    thread.join(PATIENCE_SECONDS)
            assert not any(thread.is_alive() for thread in threads)
            server.start()
        kept = {one["id"] for one in server.owner().api_keys(app)}
        assert set(confirmed) <= kept
        assert len(kept) <= attempts
        # Each change raised the version in its own transaction: none without the other.
        assert server.owner().enclave(enclave)["bundle_version"] == 1 + len(kept)
        server.end()
    with sqlite3.connect(server.folder / "store.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_full_disk_is_said_and_nothing_is_half_done(tmp_path: pathlib.Path) -> None:
    who = Somebody(home=tmp_path)
    server = PlatformServer.make(who, tmp_path / "state")
    store = server.folder / "store.sqlite3"
    limit = store.stat().st_size + 150_000

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-m", "cloister.cli.main", "platform", "serve", "--dir", server.folder],
        env=who.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=bounded,  # noqa: PLW1509 - the limit is for the child alone
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        owner = server.owner()
        app = uuid.UUID(server.made["app_uuid"])
        enclave = uuid.UUID(owner.add_enclave(app, "hello")["uuid"])
        value = base64.b64encode(b"x" * 30_000).decode()
        done = set_until_refused(server.client(), enclave, value)
        assert 0 < done < 16
        assert owner.enclave(enclave)["bundle_version"] == 1 + done
        assert len(owner.variables(enclave)) == done
    finally:
        process.terminate()
        process.communicate(timeout=30)
    server.start()
    try:
        owner = server.owner()
        assert len(owner.variables(enclave)) == done
        owner.set_variables(enclave, [{"name": "MORE", "value": value, "secret": False}])
        assert owner.enclave(enclave)["bundle_version"] == 2 + done
    finally:
        server.end()


def set_until_refused(client: PlatformClient, enclave: uuid.UUID, value: str) -> int:
    """Sets variables until the store is refused one, and says how many it took."""
    for number in range(16):
        one = {"name": f"V{number}", "value": value, "secret": False}
        try:
            client.send("PUT", f"/v1/enclaves/{enclave}/variables", {"variables": [one]})
        except StoreError:
            return number
    raise AssertionError("the disk was never full")


def test_a_client_waits_for_a_platform_that_starts(tmp_path: pathlib.Path) -> None:
    server = PlatformServer.make(Somebody(home=tmp_path), tmp_path / "state")
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(server.client().get("/v1/apps", deadline_s=30))
        except CloisterError as problem:
            found.append(problem)

    thread = threading.Thread(target=ask)
    thread.start()
    server.start()
    try:
        thread.join(2 * PATIENCE_SECONDS)
        assert not thread.is_alive()
    finally:
        server.end()
    assert isinstance(found[0], list), found
