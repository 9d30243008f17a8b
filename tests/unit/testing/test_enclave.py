"""A simulated enclave: the real data plane, attested by the real client."""

import json
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from cloister import attest, client
from cloister.attest import Measurements
from cloister.client.httpx_transport import AttestedTransport
from cloister.errors import (
    BindingMismatch,
    CloisterError,
    ConfigError,
    DebugEnclave,
    MeasurementMismatch,
    NonceMismatch,
    PolicyError,
    RunnerError,
    TransportError,
    UsageError,
)
from cloister.testing import Fault, Request, SimulatedEnclave, document, handler, wsgi


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedEnclave]:
    with SimulatedEnclave() as running:
        yield running


@pytest.fixture
def enclave() -> Iterator[SimulatedEnclave]:
    with SimulatedEnclave() as running:
        yield running


def test_an_attested_request_arrives_opened(shared: SimulatedEnclave) -> None:
    with shared.session() as session:
        card = shared.encrypt({"card": "4242", "amount": 3})
        assert str(card["card"]).startswith("ev:")
        seen = session.post("/pay?now=1", json=card).json()
    assert json.loads(seen["body"]) == {"card": "4242", "amount": 3}
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/pay", "now=1")
    assert "api-key" not in seen["headers"]
    assert "x-evervault-ctx" in seen["headers"]


def test_it_asks_for_its_key(shared: SimulatedEnclave) -> None:
    for key, status in ((shared.api_key, 200), ("ck_test_" + "A" * 43, 401)):
        with shared.session(api_key=key) as session:
            assert session.get("/").status_code == status


def test_a_policy_is_held_against_it_as_in_production(shared: SimulatedEnclave) -> None:
    """Not by accepting debug enclaves, and not by accepting any measurement."""
    policy = shared.policy()
    assert not policy.dangerous_accept_debug
    assert not policy.dangerous_any_measurement
    assert shared.measurements.registers[0] == b"\xa0" * 48
    other = shared.policy(measurements={"PCR0": "ab" * 48})
    for accepted, refused in ((policy, None), (other, MeasurementMismatch)):
        with shared.session(accepted) as session:
            if refused is None:
                assert session.get("/").status_code == 200
            else:
                with pytest.raises(refused, match="PCR0 received a0a0"):
                    session.get("/")


def test_registers_are_those_that_were_asked_for(tmp_path: pathlib.Path) -> None:
    toml = tmp_path / "enclave.toml"
    toml.write_text(f'[attestation]\nPCR0 = "{"12" * 48}"\nPCR8 = "{"34" * 48}"\n')
    with SimulatedEnclave(pcrs=Measurements.from_toml(toml)) as enclave:
        with client.Session(
            enclave.url, toml, trust_anchor=enclave.trust_anchor, ca_file=enclave.ca_file
        ) as session:
            assert session.get("/", headers={"api-key": enclave.api_key}).status_code == 200
        shown = client.attest(enclave.url, enclave.policy(), ca_file=str(enclave.ca_file)).claims
        assert (shown.pcrs[0], shown.pcrs[1], shown.pcrs[8]) == (
            b"\x12" * 48,
            bytes(48),
            b"\x34" * 48,
        )
    for wrong in ({"PRC0": "ab" * 48}, {"PCR0": "ab"}, {"PCR4": "ab" * 48}):
        with pytest.raises(PolicyError):
            SimulatedEnclave(pcrs=wrong)


def test_zero_registers_are_a_debug_enclave() -> None:
    with SimulatedEnclave(pcrs={0: bytes(48)}) as enclave:
        with enclave.session() as session, pytest.raises(DebugEnclave):
            session.get("/")
        with enclave.session(enclave.policy(dangerous_accept_debug=True)) as session:
            assert session.get("/").status_code == 200


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.OTHER_NONCE])
def test_a_fault_raises_its_error_and_passes(enclave: SimulatedEnclave, fault: Fault) -> None:
    """A socket, for it raises our error for everything; nothing of a request arrives."""
    with enclave.client() as given:
        client.connect(given).close()
    with enclave.failing(fault), enclave.client(timeout=5) as given:
        with pytest.raises(fault.error) as caught:
            client.connect(given)
        assert type(caught.value) is fault.error
    with enclave.client() as given:
        client.connect(given).close()


def test_another_nonce_is_noticed_by_who_sent_one(enclave: SimulatedEnclave) -> None:
    with enclave.failing(Fault.OTHER_NONCE):
        with enclave.client() as given:
            client.connect(given).close()
        with (
            enclave.client(freshness="per-connection") as given,
            pytest.raises(NonceMismatch),
        ):
            client.connect(given)
    with enclave.client(freshness="per-connection") as given:
        client.connect(given).close()


@pytest.mark.parametrize(
    "fault",
    [Fault.DEBUG, Fault.OTHER_CODE, Fault.OTHER_KEY, Fault.OTHER_ROOT, Fault.STALE],
)
def test_a_fault_is_the_same_with_a_nonce(enclave: SimulatedEnclave, fault: Fault) -> None:
    """What is wrong is said, and not that a document of before has no nonce."""
    with (
        enclave.failing(fault),
        enclave.client(freshness="per-connection") as given,
        pytest.raises(fault.error),
    ):
        client.connect(given)


def test_a_document_of_the_tests_own_is_shown(enclave: SimulatedEnclave) -> None:
    def signed(**fields: Any) -> bytes:
        said = {"root": enclave.root, "pcrs": enclave.measurements, "user_data": enclave.tls_spki}
        return document(**{**said, **fields}).raw

    genuine = signed(public_key=b"a key of ours", module_id="i-ours")
    with enclave.showing(genuine):
        found = client.attest(enclave.url, enclave.policy(), ca_file=str(enclave.ca_file))
        assert found.document == genuine
        assert (found.claims.module_id, found.claims.public_key) == ("i-ours", b"a key of ours")
        with enclave.session() as session:
            assert session.get("/").status_code == 200
    with (
        enclave.showing(signed(user_data=b"another key")),
        enclave.session() as session,
        pytest.raises(BindingMismatch),
    ):
        session.get("/")
    assert client.attest(
        enclave.url, enclave.policy(), ca_file=str(enclave.ca_file)
    ).claims.user_data == (enclave.tls_spki)


def test_every_fault_has_an_error() -> None:
    assert {fault for fault in Fault if not fault.is_proof} == {
        Fault.DOWN,
        Fault.NO_DOCUMENT,
        Fault.OTHER_CA,
    }
    assert all(issubclass(fault.error, CloisterError) for fault in Fault)


def test_a_session_survives_a_new_key(enclave: SimulatedEnclave) -> None:
    spki = _key_of(enclave)
    with enclave.session() as session:
        assert session.get("/").status_code == 200
        enclave.rotate_tls_key()
        assert session.get("/").status_code == 200
    assert _key_of(enclave) != spki


def test_a_new_image_is_refused_until_it_is_accepted(enclave: SimulatedEnclave) -> None:
    before = enclave.measurements
    accepted: list[Measurements] = [before]
    with enclave.session(pcr_provider=lambda: accepted) as session:
        assert session.get("/").status_code == 200
        after = enclave.redeploy()
        # The same people signed it.
        assert after.registers[8] == before.registers[8]
        assert all(after.registers[index] != before.registers[index] for index in (0, 1, 2))
        with pytest.raises(MeasurementMismatch):
            session.get("/")
        accepted.append(after)
        assert session.get("/").status_code == 200
    assert enclave.redeploy({"PCR0": "cd" * 48}) == Measurements({0: b"\xcd" * 48})


def test_what_clients_know_stays(enclave: SimulatedEnclave) -> None:
    def known() -> tuple[object, ...]:
        return (
            enclave.url,
            enclave.ca_file.read_bytes(),
            enclave.nsm_root_file.read_bytes(),
            enclave.trust_anchor,
            enclave.api_key,
            enclave.app_public_key,
            enclave.data_plane.uuid,
        )

    before = known()
    enclave.redeploy()
    enclave.rotate_tls_key()
    enclave.stop()
    enclave.start()
    with enclave.failing(Fault.STALE):
        assert known() == before
    assert known() == before


def test_connections_are_refused_while_it_is_down(enclave: SimulatedEnclave) -> None:
    port = int(enclave.url.rpartition(":")[2])
    enclave.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(UsageError, match="down"):
        enclave.data_plane.health()
    enclave.start()
    with pytest.raises(UsageError, match="already"):
        enclave.start()
    with enclave.session() as session:
        assert session.get("/").status_code == 200


def test_nobody_else_is_given_its_port_while_it_is_down(enclave: SimulatedEnclave) -> None:
    port = int(enclave.url.rpartition(":")[2])
    enclave.stop()
    with pytest.raises(OSError, match="in use"):
        _bind(port)
    enclave.close()
    _bind(port)


def test_a_fault_of_one_that_is_down_waits_for_its_start(enclave: SimulatedEnclave) -> None:
    enclave.stop()
    with enclave.failing(Fault.OTHER_KEY):
        enclave.start()
        with enclave.session() as session, pytest.raises(BindingMismatch):
            session.get("/")
    with enclave.session() as session:
        assert session.get("/").status_code == 200


def test_of_faults_that_overlap_the_last_one_begun_is_played(enclave: SimulatedEnclave) -> None:
    """They end in the order in which they began, as those of two threads may."""

    def check(expected: type[CloisterError] | None) -> None:
        with enclave.client() as given:
            if expected is None:
                client.connect(given).close()
            else:
                with pytest.raises(expected):
                    client.connect(given)

    first, second, again = (
        enclave.failing(fault) for fault in (Fault.OTHER_KEY, Fault.OTHER_CODE, Fault.OTHER_KEY)
    )
    first.__enter__()
    check(BindingMismatch)
    second.__enter__()
    check(MeasurementMismatch)
    first.__exit__(None, None, None)
    check(MeasurementMismatch)
    again.__enter__()
    check(BindingMismatch)
    second.__exit__(None, None, None)
    check(BindingMismatch)
    again.__exit__(None, None, None)
    check(None)


def test_a_handler_sees_what_arrives() -> None:
    def answer(request: Request) -> object:
        if request.path == "/json":
            return {"card": request.json()["card"], "agent": request.header("User-Agent")}
        return {"/bytes": b"\x00\xff", "/text": "grüße"}.get(request.path, [])

    app = handler(answer)
    with SimulatedEnclave(app) as enclave, enclave.session() as session:
        found = session.post(
            "/json", json={"card": enclave.encrypt("4242")}, headers={"user-agent": "test"}
        )
        assert found.json() == {"card": "4242", "agent": "test"}
        assert session.get("/bytes").content == b"\x00\xff"
        assert session.get("/text").text == "grüße"
        assert session.get("/b%20c?x=1").json() == []
        assert session.get("/a%3Fb?x=%3D").json() == []
        # Chunked, too.
        session.post("/chunks", data=iter([b"one", b"two"]))
    assert [(one.method, one.path, one.query) for one in app.seen] == [
        ("POST", "/json", ""),
        ("GET", "/bytes", ""),
        ("GET", "/text", ""),
        ("GET", "/b c", "x=1"),
        ("GET", "/a?b", "x=%3D"),
        ("POST", "/chunks", ""),
    ]
    assert app.seen[-1].body == b"onetwo"
    assert app.seen[0].header("nothing") is None


def test_nothing_reaches_the_application_of_who_does_not_prove_itself() -> None:
    app = handler(lambda _request: "fine")
    with SimulatedEnclave(app) as enclave:
        with (
            enclave.failing(Fault.OTHER_CODE),
            enclave.session() as session,
            pytest.raises(MeasurementMismatch),
        ):
            session.post("/secret", data=b"secret")
        assert app.seen == []
        with enclave.session() as session:
            session.post("/fine")
        assert len(app.seen) == 1


def test_a_wsgi_application_is_behind_it() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("201 Created", [("content-type", "text/plain")])
        return [environ["REQUEST_METHOD"].encode(), b" ", body]

    with SimulatedEnclave(wsgi(app)) as enclave, enclave.session() as session:
        answer = session.post("/", data=iter([b"chu", b"nks"]))
        assert (answer.status_code, answer.text) == (201, "POST chunks")


def test_an_asgi_application_is_behind_it_with_its_lifespan() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                told.append(kind)
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with SimulatedEnclave(app) as enclave, enclave.session() as session:
        assert session.get("/").status_code == 204
        enclave.redeploy()
        assert told == ["startup"]
    assert told == ["startup", "shutdown"]


def test_an_application_that_does_not_start_is_an_error() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    enclave = SimulatedEnclave(app)
    with pytest.raises(RunnerError, match="did not start"):
        enclave.start()
    enclave.close()


def test_an_application_elsewhere_is_behind_it() -> None:
    app = handler(lambda request: request.path)
    with SimulatedEnclave(app) as first:
        assert first._server is not None
        with SimulatedEnclave(first._server.address) as second, second.session() as session:
            assert session.get("/there").text == "/there"
    with pytest.raises(UsageError, match="HOST:PORT"):
        SimulatedEnclave("nowhere").start()


def test_settings_reach_the_data_plane(tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "log"
    with SimulatedEnclave(
        config={"api_key_auth": False, "name": "mine"},
        internal_api="127.0.0.1:0",
        env={"COLOR": "blue"},
        logs=logs,
    ) as enclave:
        with enclave.session(api_key=None) as session:
            assert session.get("/open").status_code == 200
        inside = f"http://{enclave.data_plane.internal_api}"
        assert requests.get(f"{inside}/info", timeout=5).json()["name"] == "mine"
        shown = requests.get(f"{inside}/env", timeout=5).json()["env"]
        assert shown == [{"name": "COLOR", "value": "blue"}]
        pcrs = requests.get(f"{inside}/pcrs", timeout=5).json()["pcrs"]
        assert pcrs["0"] == {"locked": True, "value": "a0" * 48}
    assert '"/open"' in logs.read_text()
    with pytest.raises(UsageError, match="tls_termination"):
        SimulatedEnclave(
            config={"tls": {"termination": False}, "api_key_auth": False, "logs": False}
        ).start()
    with pytest.raises(ConfigError):
        SimulatedEnclave(api_keys=["short"]).start()


def test_httpx_attests_it(shared: SimulatedEnclave) -> None:
    with (
        shared.client() as given,
        httpx.Client(transport=AttestedTransport(given, http2=True)) as http,
    ):
        answer = http.get(f"{shared.url}/")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


def test_two_do_not_believe_each_other(shared: SimulatedEnclave, enclave: SimulatedEnclave) -> None:
    """They have the same registers and other roots."""
    assert shared.measurements == enclave.measurements
    policy = shared.policy(trust_anchor=enclave.trust_anchor)
    with shared.session(policy) as session, pytest.raises(attest.UntrustedChain):
        session.get("/")
    assert shared.api_key != enclave.api_key
    assert shared.app_public_key != enclave.app_public_key


def test_threads_may_use_it_while_it_changes(enclave: SimulatedEnclave) -> None:
    """A request meets the one image or the other, or a connection that ends; never a hang."""
    odd: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(5):
                with enclave.session(pcr_provider=lambda: [enclave.measurements]) as session:
                    session.get("/")
        except (requests.RequestException, TransportError, attest.AttestationError):
            pass
        except Exception as problem:  # noqa: BLE001 - what this test is about
            odd.append(problem)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        enclave.redeploy()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert odd == []
    with enclave.session() as session:
        assert session.get("/").status_code == 200


def test_it_leaves_nothing_behind(enclave: SimulatedEnclave) -> None:
    folder = enclave.ca_file.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert enclave._server is not None
    thread = enclave._server._thread
    assert thread.is_alive()
    enclave.close()
    enclave.close()
    assert not folder.exists()
    assert not thread.is_alive()
    with pytest.raises(UsageError, match="not started"):
        _ = enclave.url


def test_an_application_that_hangs_does_not_hold_up_the_end() -> None:
    entered, released = threading.Event(), threading.Event()

    def answer(_request: Request) -> object:
        entered.set()
        released.wait(30)
        return "late"

    def ask(enclave: SimulatedEnclave) -> None:
        with enclave.session(timeout=20) as session, pytest.raises(requests.RequestException):
            session.get("/")

    with SimulatedEnclave(handler(answer), timeout=3) as enclave:
        asking = threading.Thread(target=ask, args=(enclave,))
        asking.start()
        assert entered.wait(10)
        begun = time.monotonic()
    assert time.monotonic() - begun < 6
    released.set()
    asking.join(20)
    assert not asking.is_alive()


def test_the_first_attested_answer_comes_within_a_second(record: Callable[[str], None]) -> None:
    """From nothing to an answer that was attested, in a process that has the imports."""
    begun = time.monotonic()
    with SimulatedEnclave() as enclave, enclave.session() as session:
        assert session.get("/").status_code == 200
        took = time.monotonic() - begun
    record(f"simulated enclave: first attested answer after {took * 1000:.0f} ms")
    assert took < 1.0


def _bind(port: int) -> None:
    """Takes a port, as a stranger would, and gives it back."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def _key_of(enclave: SimulatedEnclave) -> bytes | None:
    found = client.attest(enclave.url, enclave.policy(), ca_file=str(enclave.ca_file))
    return found.claims.user_data
