"""Every transport of the client over real TLS against a real data plane: one table for all."""

import datetime as dt
import json
import pathlib
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.support import simulated
from tests.support.application import Application, application
from tests.support.attesting_clients import CLIENTS, Answer, Caller, calling
from tests.support.enclave_server import EnclaveServer, serving
from tests.support.server_certificates import Authority
from tests.support.tunnel_proxy import in_the_middle, switching, tunneling

from cloister import attest
from cloister.dev import DataPlane
from cloister.errors import (
    AttestationError,
    BindingMismatch,
    DebugEnclave,
    MeasurementMismatch,
    UntrustedChain,
)

SECRET = b'{"card": "4242424242424242"}'
every_transport = pytest.mark.parametrize("name", CLIENTS)


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Authority:
    return Authority(tmp_path)


def plane_of(app: Application, authority: Authority, name: str, nsm: pathlib.Path) -> DataPlane:
    """A data plane with a certificate of the authority; all of one NSM root share an API key."""
    pair = authority.server(name)
    return DataPlane(
        app.address,
        certificate=(pair.certificate, pair.key),
        nsm_root_dir=nsm,
        api_keys=[API_KEY],
    )


@pytest.fixture
def nsm(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "nsm"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def plane(app: Application, authority: Authority, nsm: pathlib.Path) -> Iterator[DataPlane]:
    with plane_of(app, authority, "enclave", nsm) as running:
        yield running


def options(plane: DataPlane, authority: Authority, **changes: Any) -> dict[str, Any]:
    """What accepts the data plane: it has a development root and zero registers."""
    policy = {
        "measurements": {0: bytes(48)},
        "trust_anchor": attest.TrustAnchor.dangerous_root(plane.nsm_root_file),
        "dangerous_accept_debug": True,
    } | changes.pop("policy", {})
    given = {"policy": attest.Policy(**policy), "ca_file": authority.file, "api_key": API_KEY}
    return {**given, "timeout": 10.0, **changes}


@every_transport
def test_requests_arrive_over_one_attested_connection(
    name: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    with calling(name, plane.url, **options(plane, authority)) as client:
        for number in range(3):
            answer = client.call(f"/{number}", SECRET)
            assert (answer.status, answer.body) == (200, SECRET)
            assert answer.version == ("HTTP/2" if name.endswith("h2") else "HTTP/1.1")
        assert client.call("/last").json() == {"path": "/last"}
    assert [seen.path for seen in app.seen] == ["/0", "/1", "/2", "/last"]
    # One for the document, one for the requests.
    assert plane.stats()["connections"] == 2


# What is asked, the error, and what its message says.
REFUSED: dict[str, tuple[dict[str, Any], type[AttestationError], str]] = {
    "another image": (
        {"measurements": {0: b"\x01" * 48}},
        MeasurementMismatch,
        "(?s)PCR0 expected 0101.*PCR0 received 0000",
    ),
    "the root of AWS": (
        {"trust_anchor": attest.TrustAnchor.aws_nitro()},
        UntrustedChain,
        "trust anchor",
    ),
    "debug without the flag": ({"dangerous_accept_debug": False}, DebugEnclave, "debug"),
}


@every_transport
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_policy_does_not_accept_is_sent_nothing(
    name: str, case: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    policy, error, says = REFUSED[case]
    with (
        calling(name, plane.url, **options(plane, authority, policy=policy)) as client,
        pytest.raises(error, match=says),
    ):
        client.call("/secret", SECRET)
    assert app.seen == []
    with calling(name, plane.url, **options(plane, authority)) as client:
        client.call("/fine", SECRET)
    assert [seen.path for seen in app.seen] == ["/fine"]


@every_transport
def test_one_of_several_sets_is_enough(name: str, plane: DataPlane, authority: Authority) -> None:
    sets = {"measurements": [{"PCR0": "AB" * 48}, {"PCR0": "00" * 48, "pcr_1": "00" * 48}]}
    with calling(name, plane.url, **options(plane, authority, policy=sets)) as client:
        assert client.call("/fine").status == 200


@every_transport
def test_a_certificate_of_another_ca_is_sent_nothing(
    name: str, app: Application, plane: DataPlane, tmp_path: pathlib.Path, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with (
        calling(name, plane.url, **options(plane, authority, ca_file=other.file)) as client,
        pytest.raises(Exception, match=r"(?i)certificate"),
    ):
        client.call("/secret", SECRET)
    assert (app.seen, plane.stats()["requests"]) == ([], 0)


@every_transport
def test_a_man_in_the_middle_with_a_valid_certificate_reads_nothing(
    name: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    """He passes the document of the enclave on, and it is bound to another key than his."""
    own = authority.server("middle").context()
    theirs = ssl.create_default_context(cafile=authority.file)
    with in_the_middle(plane.address, own, theirs) as (url, read):
        with calling(name, url, **options(plane, authority)) as client:
            with pytest.raises(BindingMismatch):
                client.call("/secret", SECRET)
            # Nor a document that is known already.
            with pytest.raises(BindingMismatch):
                client.call("/secret", SECRET)
        assert b"/.well-known/attestation" in read
        assert b"/secret" not in read
        assert API_KEY.encode() not in read
    assert app.seen == []
    with calling(name, plane.url, **options(plane, authority)) as client:
        client.call("/fine", SECRET)
    assert [seen.path for seen in app.seen] == ["/fine"]


@every_transport
def test_a_man_in_the_middle_who_comes_later_reads_nothing(
    name: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    own = authority.server("middle").context()
    theirs = ssl.create_default_context(cafile=authority.file)
    with (
        in_the_middle(plane.address, own, theirs) as (middle, read),
        switching(plane.address) as (url, switch),
        calling(name, url, **options(plane, authority)) as client,
    ):
        client.call("/before", SECRET, last=True)
        switch.target = middle.removeprefix("https://")
        switch.cut()
        with pytest.raises(BindingMismatch, match=r"expected .* received"):
            ever(client, "/secret")
    assert b"/secret" not in read
    assert [seen.path for seen in app.seen] == ["/before"]


def ever(client: Caller, path: str) -> Answer:
    """A request; ``httpx`` notices the end of an idle HTTP/2 connection only when it uses it."""
    try:
        return client.call(path, SECRET, last=True)
    except httpx.TransportError:
        return client.call(path, SECRET, last=True)


@every_transport
def test_a_new_key_is_followed_while_requests_run(
    name: str, app: Application, plane: DataPlane, authority: Authority, nsm: pathlib.Path
) -> None:
    """The enclave restarts with another TLS key; no request fails, and one more document does."""
    with (
        plane_of(app, authority, "restarted", nsm) as restarted,
        switching(plane.address) as (url, switch),
        calling(name, url, **options(plane, authority)) as client,
    ):
        for number in range(12):
            if number == 5:
                switch.target = restarted.address
                # Ends what HTTP/2 keeps alive.
                plane.drain(dt.timedelta(seconds=5))
            assert ever(client, f"/{number}").status == 200
        assert restarted.stats()["requests"] == 7 + 1
    assert [seen.path for seen in app.seen] == [f"/{number}" for number in range(12)]


@every_transport
def test_a_new_image_is_followed_when_the_provider_knows_it(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Redeployed: refused until the provider names the new registers, then not."""
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    first, second = (simulated.nsm(pcr0=pcr0, root_dir=root, now=NOW()) for pcr0 in (OLD, NEW))
    accepted = [{"PCR0": OLD.hex()}]
    asked = []

    def provider() -> list[dict[str, str]]:
        asked.append(1)
        return accepted

    with (
        serving(first, tmp_path / "server") as server,
        calling(
            name,
            server.url,
            None,
            pcr_provider=provider,
            trust_anchor=simulated.anchor(first),
            ca_file=server.ca_file,
            timeout=5.0,
        ) as client,
    ):
        server.closes_after_answer = True
        client.call("/one")
        client.call("/two")
        assert (len(asked), server.fetches) == (1, 1)
        server.module = second
        server.new_key()
        with pytest.raises(MeasurementMismatch, match="PCR0"):
            client.call("/three")
        accepted = [{"PCR0": OLD.hex()}, {"PCR0": NEW.hex()}]
        client.call("/four")
    assert [path for path, _ in server.requests] == ["/one", "/two", "/four"]


@every_transport
def test_a_proxy_sees_a_tunnel_and_nothing_else(
    name: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    with tunneling() as (proxy, tunnels):
        through = {"https": proxy.replace("//", "//user:p%40ss@")}
        given = options(plane, authority, proxies=through)
        with calling(name, plane.url, **given) as client:
            assert client.call("/fine", SECRET).body == SECRET
        wrong = options(
            plane, authority, proxies=through, policy={"measurements": {0: b"\x01" * 48}}
        )
        with calling(name, plane.url, **wrong) as client, pytest.raises(MeasurementMismatch):
            client.call("/secret", SECRET)
    target = plane.url.removeprefix("https://")
    assert set(tunnels.asked) == {(target, "Basic dXNlcjpwQHNz")}
    assert len(tunnels.asked) == 4
    # A handshake record (RFC 8446, 5.1).
    assert {piece[:1] for piece in tunnels.first_bytes} == {b"\x16"}
    assert [seen.path for seen in app.seen] == ["/fine"]


@pytest.mark.parametrize("name", [name for name in CLIENTS if "httpx" in name])
def test_a_proxy_reached_by_tls_is_not_taken_for_the_enclave(
    name: str, app: Application, plane: DataPlane, authority: Authority
) -> None:
    """Its handshake comes first, with a certificate of the same CA and no document."""
    context = authority.server("proxy").context()
    with tunneling(context) as (proxy, tunnels):
        enclave = options(plane, authority, proxies={"https": proxy})
        with (
            calling(name, plane.url, **enclave) as client,
            pytest.raises(Exception, match=r"(?i)certificate"),
        ):
            client.call("/secret", SECRET)
    assert (tunnels.asked, app.seen) == ([], [])


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in {"socket", "streams"}])
def test_an_enclave_behind_a_proxy_reached_by_tls_is_attested(
    name: str,
    app: Application,
    plane: DataPlane,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two handshakes: the certificate of the second one is the one that counts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with tunneling(authority.server("proxy").context()) as (proxy, tunnels):
        through = {"https": proxy}
        with calling(name, plane.url, **options(plane, authority, proxies=through)) as client:
            assert client.call("/fine", SECRET).body == SECRET
        wrong = options(
            plane, authority, proxies=through, policy={"measurements": {0: b"\x01" * 48}}
        )
        with calling(name, plane.url, **wrong) as client, pytest.raises(MeasurementMismatch):
            client.call("/secret", SECRET)
    assert {target for target, _ in tunnels.asked} == {plane.url.removeprefix("https://")}
    assert [seen.path for seen in app.seen] == ["/fine"]


@every_transport
def test_an_enclave_that_is_down_at_the_start_is_no_obstacle_later(
    name: str, plane: DataPlane, authority: Authority
) -> None:
    with (
        switching("127.0.0.1:1") as (url, switch),
        calling(name, url, **options(plane, authority, timeout=3.0)) as client,
    ):
        for _ in range(2):
            with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has its own
                client.call("/early")
            assert not isinstance(raised.value, AttestationError)
        switch.target = plane.address
        assert client.call("/late").status == 200


@every_transport
def test_a_document_for_each_connection(name: str, plane: DataPlane, authority: Authority) -> None:
    given = options(plane, authority, freshness="per-connection")
    with calling(name, plane.url, **given) as client:
        for number in range(3):
            client.call(f"/{number}", last=True)
        kept = name.endswith("h2")
        assert plane.stats()["connections"] == (2 if kept else 6)


@every_transport
def test_an_enclave_without_documents_is_an_error_with_its_reason(
    name: str, tmp_path: pathlib.Path
) -> None:
    module = simulated.nsm(now=NOW())
    with serving(module, tmp_path / "server") as server:
        server.answer_for_documents = lambda: json.dumps({"hello": 1}).encode()
        with (
            calling(
                name, server.url, simulated.policy(module), ca_file=server.ca_file, timeout=5.0
            ) as client,
            pytest.raises(AttestationError, match="attestation_doc"),
        ):
            client.call("/secret", SECRET)
        check_nothing_came(server)


def check_nothing_came(server: EnclaveServer) -> None:
    assert (server.requests, server.request_bytes) == ([], 0)


NOW = simulated.now
OLD, NEW = b"\x51" * 48, b"\x52" * 48
API_KEY = "ck_test_5aaP2cBq0h1aN3PzWf3lT6d9uXyKsR7v"
