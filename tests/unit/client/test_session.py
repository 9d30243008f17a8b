"""The session: nothing is sent before the proof, and everything is sent after it."""

import contextlib
import datetime as dt
import gc
import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest
import requests
from tests.support import simulated
from tests.support.enclave_server import EnclaveServer, serving

from cloister import attest, client
from cloister.errors import (
    BindingMismatch,
    ConfigError,
    MalformedDocument,
    MeasurementMismatch,
    MissingInput,
    PolicyError,
    StaleDocument,
    TransportError,
    UntrustedChain,
    UsageError,
)


@pytest.fixture
def enclave(tmp_path: pathlib.Path) -> Iterator[EnclaveServer]:
    module = simulated.nsm(now=dt.datetime.now(dt.UTC))
    with serving(module, tmp_path / "enclave") as server:
        yield server


RIGHT = object()


def session(enclave: EnclaveServer, policy: object = RIGHT, **options: object) -> client.Session:
    given = simulated.policy(enclave.module) if policy is RIGHT else policy
    options.setdefault("ca_file", enclave.ca_file)
    options.setdefault("timeout", 5.0)
    return client.Session(enclave.url, given, **options)  # type: ignore[arg-type]


def test_a_request_arrives_after_attestation(enclave: EnclaveServer) -> None:
    with session(enclave, api_key="key-1") as http:
        assert http.get(f"{enclave.url}/hello").json() == {"ok": True}
        assert http.post("/again", json={"a": 1}).status_code == 200
    assert [path for path, _ in enclave.requests] == ["/hello", "/again"]
    assert enclave.request_bytes > 0
    assert {headers["api-key"] for _, headers in enclave.requests} == {"key-1"}
    # One for the document, one for both requests.
    assert (enclave.connections, enclave.fetches) == (2, 1)


def test_every_new_connection_is_attested_from_the_cache(enclave: EnclaveServer) -> None:
    enclave.closes_after_answer = True
    with session(enclave) as http:
        for _ in range(3):
            http.get("/hello")
    assert (enclave.connections, enclave.fetches, len(enclave.requests)) == (4, 1, 3)


def test_a_wrong_measurement_sends_nothing(enclave: EnclaveServer) -> None:
    wrong = simulated.policy(enclave.module, pcr0=b"\x01" * 48)
    with session(enclave, wrong) as http, pytest.raises(MeasurementMismatch, match="PCR0"):
        http.post("/secret", data=b"plaintext", headers={"x": "y"})
    assert enclave.connections == 2
    assert (enclave.requests, enclave.request_bytes) == ([], 0)
    with session(enclave) as http:
        http.post("/secret", data=b"")
    assert len(enclave.requests) == 1


def test_the_production_root_sends_nothing(enclave: EnclaveServer) -> None:
    production = attest.Policy(measurements={0: simulated.PCR0})
    with session(enclave, production) as http, pytest.raises(UntrustedChain):
        http.get("/secret")
    assert (enclave.requests, enclave.request_bytes) == ([], 0)


def test_a_document_of_another_tls_key_sends_nothing(enclave: EnclaveServer) -> None:
    foreign = enclave.spki
    enclave.new_key()
    enclave.documents = lambda _spki, nonce: enclave.genuine(foreign, nonce)
    with session(enclave) as http:
        with pytest.raises(BindingMismatch):
            http.get("/secret")
        assert (enclave.requests, enclave.request_bytes) == ([], 0)
        enclave.documents = enclave.genuine
        http.get("/fine")
    assert len(enclave.requests) == 1


def test_a_stale_document_sends_nothing(enclave: EnclaveServer) -> None:
    old = enclave.genuine(enclave.spki, None)
    enclave.documents = lambda _spki, _nonce: old
    template = simulated.policy(enclave.module)
    strict = attest.Policy(
        measurements=template.measurements,
        trust_anchor=template.trust_anchor,
        max_age=dt.timedelta(minutes=10),
        leeway=dt.timedelta(0),
    )
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=11)
    with session(enclave, strict, clock=lambda: later) as http, pytest.raises(StaleDocument):
        http.get("/secret")
    assert (enclave.requests, enclave.request_bytes) == ([], 0)
    with session(enclave, strict) as http:
        http.get("/fine")
    assert len(enclave.requests) == 1


def test_a_certificate_of_another_ca_sends_nothing(
    enclave: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    with (
        serving(enclave.module, tmp_path / "other") as other,
        session(enclave, ca_file=other.ca_file) as http,
        pytest.raises(requests.exceptions.SSLError),
    ):
        http.get("/secret")
    assert (enclave.requests, enclave.request_bytes) == ([], 0)
    assert enclave.fetches == 0


def test_a_key_rotation_is_followed(enclave: EnclaveServer) -> None:
    enclave.closes_after_answer = True
    with session(enclave) as http:
        http.get("/one")
        enclave.new_key()
        http.get("/two")
    assert enclave.fetches == 2


def test_a_bad_document_never_replaces_a_good_one(enclave: EnclaveServer) -> None:
    enclave.closes_after_answer = True
    with session(enclave) as http:
        http.get("/one")
        enclave.answer_for_documents = lambda: b'{"attestation_doc":"aGFsdA=="}'
        with pytest.raises(MalformedDocument):
            http.attestor().refresh()
        http.get("/two")
    assert [path for path, _ in enclave.requests] == ["/one", "/two"]


def test_the_background_refresh_goes_on_after_a_failure(enclave: EnclaveServer) -> None:
    seen = threading.Event()
    answers = iter([b"no", b"nothing"])

    def documents() -> bytes | None:
        answer = next(answers, None)
        if answer is None and enclave.fetches >= 4:
            seen.set()
        return answer

    with session(enclave, refresh_every=dt.timedelta(milliseconds=20)) as http:
        http.get("/one")
        enclave.answer_for_documents = documents
        assert seen.wait(10)
        http.get("/two")
    assert len(enclave.requests) == 2


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "cloister-attestation"]


def test_closing_ends_the_thread_and_so_does_forgetting(enclave: EnclaveServer) -> None:
    pause = dt.timedelta(milliseconds=20)
    with session(enclave, refresh_every=pause) as http:
        http.get("/one")
        assert threads()
    assert not threads()
    forgotten = session(enclave, refresh_every=pause)
    forgotten.get("/two")
    thread = threads()[0]
    del forgotten
    for _ in range(100):  # a refresh may hold it at the moment of a collection
        gc.collect()
        thread.join(0.1)
        if not thread.is_alive():
            break
    assert not thread.is_alive()


def test_a_nonce_for_each_connection(enclave: EnclaveServer) -> None:
    enclave.closes_after_answer = True
    seen: list[bytes | None] = []

    def documents(spki: bytes, nonce: bytes | None) -> bytes:
        seen.append(nonce)
        return enclave.genuine(spki, nonce)

    enclave.documents = documents
    with session(enclave, freshness="per-connection") as http:
        http.get("/one")
        http.get("/two")
        assert len(set(seen)) == 2
        enclave.documents = lambda spki, _nonce: enclave.genuine(spki, b"replayed" * 4)
        with pytest.raises(attest.NonceMismatch):
            http.get("/three")
    assert len(enclave.requests) == 2


def test_another_host_is_refused_and_an_added_one_is_not(
    enclave: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    with serving(enclave.module, tmp_path / "other") as other:
        enclave.redirect_to = f"{other.url}/moved"
        other_policy = simulated.policy(other.module)
        with session(enclave, api_key="first") as http:
            with pytest.raises(PolicyError, match="not an enclave of this session"):
                http.get("/redirect")
            with pytest.raises(PolicyError):
                http.get(f"{other.url}/direct")
            with pytest.raises(PolicyError):
                http.get(enclave.url.replace("https", "http"))
            assert other.connections == 0
            both = tmp_path / "both.pem"
            both.write_bytes(enclave.ca_file.read_bytes() + other.ca_file.read_bytes())
        with session(enclave, ca_file=both, api_key="first") as http:
            http.add(other.url, other_policy)
            assert http.get("/redirect").url == f"{other.url}/moved"
        path, headers = other.requests[0]
        assert path == "/moved"
        assert "api-key" not in headers


def test_verification_cannot_be_turned_off(enclave: EnclaveServer) -> None:
    with session(enclave) as http:
        with pytest.raises(UsageError, match="verify"):
            http.get("/secret", verify=False)
        http.verify = False
        with pytest.raises(UsageError):
            http.get("/secret")
    assert enclave.connections == 0


def test_a_dead_enclave_is_an_error_within_the_timeout(enclave: EnclaveServer) -> None:
    enclave.answer_for_documents = lambda: None
    url = enclave.url
    enclave.close()
    fetcher = client.Fetcher(enclave=client.EnclaveUrl.parse(url), timeout_seconds=2)
    with pytest.raises(TransportError, match="cannot reach"):
        fetcher.fetch()


def test_an_answer_that_drips_is_given_up(enclave: EnclaveServer) -> None:
    """Each byte comes within the time for a byte; the whole does not."""
    enclave.drips = True
    url = client.EnclaveUrl.parse(enclave.url)
    fetcher = client.Fetcher(enclave=url, ca_file=str(enclave.ca_file), timeout_seconds=0.5)
    with pytest.raises(TransportError, match="took longer"):
        fetcher.fetch()


def test_an_answer_without_end_is_cut(enclave: EnclaveServer) -> None:
    enclave.answer_for_documents = lambda: b"x" * 1_000_000
    with session(enclave) as http, pytest.raises(MalformedDocument, match="longer than"):
        http.get("/secret")
    assert (enclave.requests, enclave.request_bytes) == ([], 0)


def given_to(enclave: EnclaveServer, given: object) -> client.Session:
    anchor = simulated.anchor(enclave.module)
    return session(enclave, given, trust_anchor=anchor)


# Where measurements come from, and that nothing means "accept all" (T-15).
def test_a_file_a_dict_a_list_and_a_function(
    enclave: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    toml = tmp_path / "enclave.toml"
    toml.write_text(f'[attestation]\nHashAlgorithm = "Sha384"\nPCR0 = "{"5A" * 48}"\n')
    right = {"PCR0": "5A" * 48}
    wrong = {"PCR0": "00" * 48}
    for given in (toml, str(toml), right, [wrong, right], lambda: right, lambda: [right]):
        with given_to(enclave, given) as http:
            http.get("/hello")
    assert len(enclave.requests) == 6


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        None,
        [{}],
        {"PCR00x": "5a" * 48},
        {"PRC0": "5a" * 48},
        {"PCR0": "5a" * 47},
        {"PCR3": "5a" * 48},
        {"PCR32": "5a" * 48},
        {"PCR0": "zz" * 48},
        {"PCR0": "5a" * 48, 0: b"5" * 48},
    ],
    ids=repr,
)
def test_a_wrong_one_is_an_error_at_once(enclave: EnclaveServer, given: object) -> None:
    with pytest.raises(PolicyError):
        given_to(enclave, given)
    with given_to(enclave, lambda: given) as http, pytest.raises(PolicyError):
        http.get("/secret")
    assert (enclave.requests, enclave.request_bytes) == ([], 0)


def test_a_file_without_measurements_is_an_error(
    enclave: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(MissingInput):
        given_to(enclave, tmp_path / "none.toml")
    (tmp_path / "enclave.toml").write_text("name = 'x'\n")
    with pytest.raises(ConfigError, match="no PCRs"):
        given_to(enclave, tmp_path / "enclave.toml")


def test_a_provider_that_fails_keeps_the_last_good_ones(enclave: EnclaveServer) -> None:
    enclave.closes_after_answer = True
    answers: list[object] = [{"PCR0": "5a" * 48}]

    def provider() -> object:
        if answers:
            return answers.pop(0)
        raise OSError("registry is down")

    with given_to(enclave, provider) as http:
        http.get("/one")
        with pytest.raises(PolicyError, match="registry is down"):
            http.attestor().refresh()
        http.get("/two")
    assert len(enclave.requests) == 2


def test_a_provider_beside_a_policy(enclave: EnclaveServer) -> None:
    """Measurements come from the function, the root and the rest from the policy."""
    outdated = simulated.policy(enclave.module, pcr0=b"\x01" * 48)
    with session(enclave, outdated, pcr_provider=lambda: {0: simulated.PCR0}) as http:
        http.get("/one")
    with (
        session(enclave, outdated, pcr_provider=lambda: {0: b"\x02" * 48}) as http,
        pytest.raises(MeasurementMismatch),
    ):
        http.get("/two")
    assert len(enclave.requests) == 1
    with pytest.raises(UsageError):
        session(enclave, {0: simulated.PCR0}, pcr_provider=lambda: {0: simulated.PCR0})
    with pytest.raises(PolicyError):
        client.Session(enclave.url)


def test_a_new_deployment_is_followed(enclave: EnclaveServer) -> None:
    """The enclave has new PCRs: the check fails, the provider is asked, and knows them."""
    enclave.closes_after_answer = True
    current = {"PCR0": "77" * 48}
    module = enclave.module
    with given_to(enclave, lambda: current) as http:
        with pytest.raises(MeasurementMismatch):
            http.get("/one")
        current = {"PCR0": "5a" * 48}
        http.get("/two")
    assert module is enclave.module
    assert [path for path, _ in enclave.requests] == ["/two"]


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that tunnels, and the targets it was asked for."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def move(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def tunnel(near: socket.socket) -> None:
        near.settimeout(10)
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        target = head.split(b" ")[1].decode()
        asked.append(target)
        host, _, port = target.rpartition(":")
        with near, socket.create_connection((host, int(port)), timeout=10) as far:
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=move, args=(far, near))
            back.start()
            move(near, far)
            back.join(10)

    def accept() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                near, _ = listener.accept()
                threads.append(threading.Thread(target=tunnel, args=(near,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    stop.set()
    accepting.join(10)
    listener.close()
    for thread in threads:
        thread.join(10)


def test_a_connection_through_a_proxy_is_attested(
    enclave: EnclaveServer, proxy: tuple[str, list[str]]
) -> None:
    url, asked = proxy
    wrong = simulated.policy(enclave.module, pcr0=b"\x01" * 48)
    with session(enclave, wrong) as http, pytest.raises(MeasurementMismatch):
        http.get("/secret", proxies={"https": url})
    assert (enclave.requests, enclave.request_bytes) == ([], 0)
    assert len(asked) == 1
    with session(enclave, proxies={"https": url}) as http:
        http.get("/hello")
    assert len(enclave.requests) == 1
    assert set(asked) == {enclave.url.removeprefix("https://")}
    assert len(asked) == 3  # with the document of the second one


def test_threads_share_one_session(enclave: EnclaveServer) -> None:
    failures: list[BaseException] = []
    with session(enclave) as http:

        def work() -> None:
            try:
                for _ in range(5):
                    http.get("/hello")
            except BaseException as problem:  # noqa: BLE001 - reported below
                failures.append(problem)

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert failures == []
    assert len(enclave.requests) == 40
    assert enclave.fetches == 1
