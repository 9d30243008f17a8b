"""The agent API whole: an enclave's socket, Rust, the Python application, platform, authority."""

import base64
import contextlib
import datetime as dt
import json
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.agent import call
from tests.support.sockets import connect, echo, peer, read_all, short_folder

from cloister.errors import ReleaseRefused, RunnerError
from cloister.host import DevelopmentCa, Host, HostOptions
from cloister.host.objects import DirectoryObjects

ENCLAVE = uuid.UUID("5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11")
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
KEY = bytes(range(32))
DOCUMENT = cbor2.dumps([b"", {}, cbor2.dumps({"public_key": KEY}), b""])


class ScriptedPlatform:
    """Remembers what it was asked; releases to one document only."""

    def __init__(self) -> None:
        self.version = 1
        self.asked: list[tuple[object, ...]] = []
        self.changed = threading.Condition()

    def issue_challenge(self, enclave_uuid: uuid.UUID) -> bytes:
        """Always the same."""
        self.asked.append(("challenge", enclave_uuid))
        return b"c" * 32

    def provision(self, enclave_uuid: uuid.UUID, document: bytes, now: dt.datetime) -> bytes:
        """Releases to ``DOCUMENT``."""
        self.asked.append(("provision", enclave_uuid, document, now))
        if document != DOCUMENT:
            raise ReleaseRefused("PCR0 is not of an active deployment")
        return b"sealed 1"

    def newer_bundle(
        self, enclave_uuid: uuid.UUID, after: int, *, boot_key: bytes, now: dt.datetime
    ) -> bytes | None:
        """The version, as text."""
        self.asked.append(("bundle", enclave_uuid, boot_key, now))
        return f"sealed {self.version}".encode() if self.version > after else None

    def wait_for_change(self, enclave_uuid: uuid.UUID, after: int, timeout_s: float) -> bool:
        """Waits for :meth:`release`."""
        del enclave_uuid
        with self.changed:
            return self.changed.wait_for(lambda: self.version > after, timeout_s)

    def record_object(  # noqa: PLR0913 - the parts of one head
        self,
        enclave_uuid: uuid.UUID,
        *,
        boot_key: bytes,
        name: str,
        version: int,
        sha256: bytes,
        proof: bytes,
    ) -> bool:
        """Takes the first version, when its proof is right."""
        self.asked.append(("head", enclave_uuid, boot_key, name, version, sha256, proof))
        if proof != b"proof":
            raise ReleaseRefused("the head was not proved by an enclave of this image")
        return version == 1

    def release(self, version: int) -> None:
        """Makes a newer version."""
        with self.changed:
            self.version = version
            self.changed.notify_all()


class World:
    """One host with its parts, and what it was told."""

    def __init__(self, host: Host, platform: ScriptedPlatform, agent: str) -> None:
        self.host = host
        self.platform = platform
        self.agent = agent
        self.events: list[tuple[uuid.UUID, str, str]] = []
        self.ca = pathlib.Path()


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    with short_folder() as folder, contextlib.ExitStack() as stack:
        platform = ScriptedPlatform()
        options = HostOptions(
            enclave=ENCLAVE,
            ingress=f"unix:{folder}/in",
            health=f"unix:{folder}/health",
            agent=f"unix:{folder}/agent",
            listen="tcp:127.0.0.1:0",
            run_dir=folder,
            log_dir=tmp_path / "logs",
            objects=DirectoryObjects(tmp_path / "objects"),
        )
        events: list[tuple[uuid.UUID, str, str]] = []
        authority = DevelopmentCa(tmp_path / "ca", now=dt.datetime.now(dt.UTC))
        host = Host(
            options,
            platform=platform,
            certificates=authority,
            events=lambda *event: events.append(event),
        )
        stack.enter_context(host)
        made = World(host, platform, options.agent)
        made.events = events
        made.ca = authority.certificate_path
        yield made


def encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def test_a_challenge_is_of_the_platform_for_the_enclave_of_this_socket(world: World) -> None:
    """The enclave's own claim about who it is does not reach the platform."""
    liar = {"x-cloister-enclave": "00000000-0000-0000-0000-000000000000"}
    answer = call(world.agent, "POST", "/v1/challenge", headers=liar)
    assert answer.json == {"challenge": encode(b"c" * 32)}
    assert answer.headers["x-cloister-version"] == "1"
    assert world.platform.asked == [("challenge", ENCLAVE)]


def test_a_document_is_handed_over_as_it_is_and_a_refusal_says_why(world: World) -> None:
    good = call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(DOCUMENT)})
    assert good.json == {"bundle": encode(b"sealed 1")}
    bad = call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(b"x")})
    assert (bad.status, bad.json["detail"]) == (403, "PCR0 is not of an active deployment")
    # The host says why, once, as an enclave that is not provisioned can tell nobody.
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(b"x")})
    refused = ("host.refused", "PCR0 is not of an active deployment")
    assert [event[1:] for event in world.events] == [refused]
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(DOCUMENT)})
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(b"x")})
    assert [event[1:] for event in world.events] == [refused] * 2
    documents = [asked[2] for asked in world.platform.asked]
    assert documents == [DOCUMENT, b"x", b"x", DOCUMENT, b"x"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"attestation_doc":1}', b'{"attestation_doc":"%"}', b"[" * 5000]
)
def test_a_body_that_is_not_what_the_call_takes_is_refused(world: World, body: bytes) -> None:
    assert call(world.agent, "POST", "/v1/provision", body=body).status == 400
    assert world.platform.asked == []


def test_a_bundle_is_given_at_once_when_it_is_newer_and_else_when_it_comes(world: World) -> None:
    assert call(world.agent, "GET", "/v1/bundle?after=0").status == 409
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(DOCUMENT)})
    assert call(world.agent, "GET", "/v1/bundle?after=0").json == {"bundle": encode(b"sealed 1")}
    assert world.platform.asked[-1][2] == KEY

    releasing = threading.Timer(0.3, world.platform.release, args=(2,))
    releasing.start()
    started = time.monotonic()
    answer = call(world.agent, "GET", "/v1/bundle?after=1", timeout_s=30)
    assert answer.json == {"bundle": encode(b"sealed 2")}
    assert 0.2 < time.monotonic() - started < 10
    for wrong in ("", "?after=", "?after=-1", "?after=x", "?after=" + "9" * 40):
        assert call(world.agent, "GET", f"/v1/bundle{wrong}").status == 400


def test_objects_are_kept_whole_and_conditions_make_a_lock(world: World) -> None:
    path = "/v1/objects/tls-key"
    assert call(world.agent, "GET", path).status == 404
    made = call(world.agent, "PUT", path, body=b"\x00sealed", headers={"if-none-match": "*"})
    assert made.status == 204
    tag = made.headers["etag"]
    again = call(world.agent, "PUT", path, body=b"other", headers={"if-none-match": "*"})
    assert again.status == 412

    read = call(world.agent, "GET", path)
    assert (read.body, read.headers["etag"]) == (b"\x00sealed", tag)
    assert call(world.agent, "GET", path, headers={"if-none-match": tag}).status == 304

    stale = call(world.agent, "PUT", path, body=b"2", headers={"if-match": '"another"'})
    assert stale.status == 412
    changed = call(world.agent, "PUT", path, body=b"2", headers={"if-match": tag})
    assert changed.status == 204
    assert call(world.agent, "DELETE", path, headers={"if-match": tag}).status == 412
    assert call(world.agent, "GET", path).body == b"2"
    assert call(world.agent, "DELETE", path).status == 204
    assert call(world.agent, "DELETE", path).status == 404


def test_a_head_is_handed_to_the_platform_with_the_boot_it_is_of(world: World) -> None:
    path = "/v1/objects/tls.shared/head"
    head = {"version": 1, "sha256": encode(b"d" * 32), "proof": encode(b"proof")}
    assert call(world.agent, "POST", path, body=head).status == 403, "no boot was provisioned here"
    assert world.platform.asked == []
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(DOCUMENT)})
    assert call(world.agent, "POST", path, body=head).status == 204
    assert world.platform.asked[-1] == (
        "head",
        ENCLAVE,
        KEY,
        "tls.shared",
        1,
        b"d" * 32,
        b"proof",
    )
    assert call(world.agent, "POST", path, body=head | {"version": 2}).status == 409
    assert call(world.agent, "POST", path, body=head | {"proof": encode(b"x")}).status == 403
    for wrong in ({"version": "1"}, {"sha256": "%"}, {"proof": None}, {"version": None}):
        assert call(world.agent, "POST", path, body=head | wrong).status == 400


@pytest.mark.parametrize("name", ["..", "A", ".hidden", "a%2Fb", "a" * 129, "%00"])
def test_an_object_cannot_leave_its_folder(world: World, name: str, tmp_path: pathlib.Path) -> None:
    answer = call(world.agent, "PUT", f"/v1/objects/{name}", body=b"x")
    assert answer.status in {400, 404, 405}
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


def request_for(names: list[x509.GeneralName]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def ordered(world: World, csr: bytes, domains: list[str]) -> dict[str, str]:
    placed = call(
        world.agent, "POST", "/v1/acme/orders", body={"csr": encode(csr), "domains": domains}
    )
    assert placed.status == 202
    deadline = time.monotonic() + 10
    while True:
        state: dict[str, str] = call(
            world.agent, "GET", f"/v1/acme/orders/{placed.json['id']}"
        ).json
        if state["status"] != "pending":
            return state
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_certificate_is_ordered_and_openssl_believes_it(
    world: World, tmp_path: pathlib.Path
) -> None:
    assert shutil.which("openssl")
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName("hello.example")]
    state = ordered(world, request_for(names), ["hello.example"])
    assert state["status"] == "valid"
    chain = tmp_path / "chain.pem"
    chain.write_text(state["certificate_chain"])
    command = ["openssl", "verify", "-CAfile", str(world.ca), "-purpose", "sslserver"]
    for name in ("localhost", "hello.example"):
        subprocess.run([*command, "-verify_hostname", name, str(chain)], check=True)
    other = subprocess.run(
        [*command, "-verify_hostname", "other.example", str(chain)],
        check=False,
        capture_output=True,
    )
    assert other.returncode != 0

    refused = ordered(world, request_for([x509.DNSName("other.example")]), ["hello.example"])
    assert refused["status"] == "invalid"
    assert "neither local nor of this order" in refused["problem"]
    assert call(world.agent, "GET", "/v1/acme/orders/none").status == 404


def test_an_event_is_told_with_its_text_made_harmless(world: World) -> None:
    event = {"kind": "warning", "message": "a\x1b[31m\r\n" + "x" * 1000}
    assert call(world.agent, "POST", "/v1/events", body=event).status == 204
    [(enclave, kind, message)] = world.events
    assert (enclave, kind) == (ENCLAVE, "warning")
    assert message.isprintable()
    assert len(message) <= 513
    assert message.startswith("a�[31m��x")
    mine = {"kind": "host.ready", "message": "so it says"}
    assert call(world.agent, "POST", "/v1/events", body=mine).status == 400
    assert len(world.events) == 1


def test_an_unknown_call_and_a_wrong_method_are_problems(world: World) -> None:
    for method, path, status in (
        ("GET", "/v1/elsewhere", 404),
        ("GET", "/v1/challenge", 405),
        ("POST", "/v1/objects/a", 405),
    ):
        answer = call(world.agent, method, path)
        assert (answer.status, answer.json["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"


def test_clients_are_accepted_only_when_told_and_an_enclave_that_is_silent_is_not_ready(
    world: World,
) -> None:
    with pytest.raises(RunnerError, match="unknown: no answer"):
        world.host.wait_ready(dt.timedelta(milliseconds=200))
    ingress = pathlib.Path(world.agent.removeprefix("unix:")).parent / "in"
    with peer(echo, ingress):
        address = world.host.accept()
        with connect(address) as client:
            client.sendall(b"hi")
            # The enclave's side sees a PROXY header first, and the echo sends it back.
            assert client.recv(4).startswith(b"\r\n\r\n")
    assert world.host.relay_stats()["accepted"] == 1


def test_a_stop_does_not_wait_for_a_long_poll(world: World) -> None:
    call(world.agent, "POST", "/v1/provision", body={"attestation_doc": encode(DOCUMENT)})

    def poll() -> None:
        with contextlib.suppress(OSError, ValueError):
            call(world.agent, "GET", "/v1/bundle?after=1", timeout_s=40)

    polling = threading.Thread(target=poll)
    polling.start()
    time.sleep(0.3)
    started = time.monotonic()
    world.host.stop()
    assert time.monotonic() - started < 8
    polling.join(10)
    assert not polling.is_alive()


class FakeHealth:
    """The health port of an enclave whose state is set; remembers what it was told."""

    def __init__(self) -> None:
        self.state = "provisioning"
        self.told: list[str] = []

    def serve(self, connection: socket.socket) -> None:
        """Answers one request."""
        line = connection.recv(4096).split(b"\r\n")[0].decode()
        if line.startswith("POST /v1/drain"):
            self.told.append(line)
            self.state = "draining"
        status = "200 OK" if self.state == "ready" else "503 Service Unavailable"
        body = json.dumps({"state": self.state, "reason": f"it is {self.state}"}).encode()
        connection.sendall(
            f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )


def test_a_host_follows_its_enclave_from_provisioning_to_drained(world: World) -> None:
    enclave = FakeHealth()
    folder = pathlib.Path(world.agent.removeprefix("unix:")).parent
    with peer(enclave.serve, folder / "health"), peer(echo, folder / "in"):
        with pytest.raises(RunnerError, match="state is provisioning: it is provisioning"):
            world.host.wait_ready(dt.timedelta(seconds=1))
        enclave.state = "ready"
        assert world.host.wait_ready(dt.timedelta(seconds=10)).ready

        with connect(world.host.accept()) as client:
            client.sendall(b"before")
            assert client.recv(1)
            draining = threading.Thread(
                target=world.host.drain, args=(dt.timedelta(seconds=20),), daemon=True
            )
            draining.start()
            deadline = time.monotonic() + 10
            while not enclave.told:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).endswith(b"beforeafter")
            draining.join(10)
            assert not draining.is_alive()
        # The agent API outlives the clients: the enclave still has logs to send.
        assert call(world.agent, "GET", "/v1/time").status == 200
