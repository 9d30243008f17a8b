"""T-15: mistakes of whoever uses the client end in an error, never in "accept all".

Every transport, against a server whose documents are genuine but for what a case says; no byte of a
request may reach it. What a policy refuses to be made of is in ``tests/unit/attest``.
"""

import pathlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import simulated
from tests.support.attesting_clients import CLIENTS, calling
from tests.support.enclave_server import EnclaveServer, serving
from tests.support.sockets import peer
from tests.support.tunnel_proxy import Switch

from cloister import attest, client
from cloister.errors import (
    ConfigError,
    MeasurementMismatch,
    MissingInput,
    PolicyError,
    TransportError,
    UsageError,
)

every_transport = pytest.mark.parametrize("name", CLIENTS)
RIGHT = {"PCR0": simulated.PCR0.hex()}


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[EnclaveServer]:
    module = simulated.nsm(now=simulated.now())
    with serving(module, tmp_path / "server") as running:
        yield running


def options(server: EnclaveServer, **changes: Any) -> dict[str, Any]:
    anchor = simulated.anchor(server.module)
    return {"ca_file": server.ca_file, "timeout": 5.0, "trust_anchor": anchor, **changes}


def nothing_came(server: EnclaveServer) -> bool:
    return (server.requests, server.request_bytes) == ([], 0)


EMPTY: dict[str, object] = {
    "nothing": None,
    "no registers": {},
    "no sets": [],
    "one set of two is empty": [RIGHT, {}],
    "a misspelt register": {"PRC0": simulated.PCR0.hex()},
    "a register too many": {**RIGHT, "PCR32": simulated.PCR0.hex()},
    "a register twice": {"PCR0": simulated.PCR0.hex(), "pcr_0": simulated.PCR0.hex()},
    "a register of machines alone": {"PCR4": simulated.PCR0.hex()},
    "a digit too few": {"PCR0": simulated.PCR0.hex()[1:]},
    "a byte too few": {"PCR0": simulated.PCR0.hex()[2:]},
    "no hexadecimal": {"PCR0": "x" * 96},
    "another digest": {"PCR0": "5a" * 32},
    "a number": {"PCR0": 0},
}


@every_transport
@pytest.mark.parametrize("case", EMPTY)
def test_measurements_that_say_nothing_are_an_error(
    name: str, case: str, server: EnclaveServer
) -> None:
    """At once where they are given; at the first connection where a function returns them."""
    with pytest.raises(PolicyError):
        CLIENTS[name](server.url, EMPTY[case], **options(server))
    with (
        calling(name, server.url, lambda: EMPTY[case], **options(server)) as made,
        pytest.raises(PolicyError),
    ):
        made.call("/secret", b"secret")
    assert nothing_came(server)


@every_transport
@pytest.mark.parametrize(
    "given",
    [
        {"PCR0": simulated.PCR0.hex().upper()},
        {"pcr0": f" {simulated.PCR0.hex()}\n"},
        {"Pcr_0": simulated.PCR0},
        {0: simulated.PCR0.hex()},
    ],
    ids=["upper case", "spaces", "bytes", "an index"],
)
def test_every_spelling_of_the_right_ones_is_accepted(
    name: str, given: dict[Any, Any], server: EnclaveServer
) -> None:
    with calling(name, server.url, given, **options(server)) as made:
        assert made.call("/fine").status == 200
    assert [path for path, _ in server.requests] == ["/fine"]


@every_transport
def test_a_provider_that_fails_is_an_error_and_not_an_answer(
    name: str, server: EnclaveServer
) -> None:
    def down() -> dict[str, str]:
        raise OSError("registry is down")

    with (
        calling(name, server.url, down, **options(server)) as made,
        pytest.raises(PolicyError, match="OSError: registry is down"),
    ):
        made.call("/secret", b"secret")
    assert nothing_came(server)
    assert server.fetches == 0


@every_transport
def test_a_provider_that_fails_later_leaves_what_was_known(
    name: str, server: EnclaveServer
) -> None:
    answers: list[object] = [RIGHT]

    def provider() -> object:
        return answers.pop() if answers else {}

    server.closes_after_answer = True
    with calling(name, server.url, provider, **options(server)) as made:
        made.call("/one")
        with pytest.raises(PolicyError):
            made.attestor().refresh()
        made.call("/two")
        # A new key: the provider is asked, says nothing, and the last good measurements decide.
        server.new_key()
        made.call("/three")
        server.new_key()
        server.module = simulated.nsm(pcr0=b"\x01" * 48, now=simulated.now())
        with pytest.raises(attest.AttestationError):
            made.call("/secret", b"secret")
    assert [path for path, _ in server.requests] == ["/one", "/two", "/three"]


@every_transport
def test_a_file_without_measurements_is_an_error(
    name: str, server: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    toml = tmp_path / "enclave.toml"
    with pytest.raises(MissingInput):
        CLIENTS[name](server.url, toml, **options(server))
    toml.write_text('name = "never built"\n')
    with pytest.raises(ConfigError, match="no PCRs"):
        CLIENTS[name](server.url, toml, **options(server))
    toml.write_text(f'[attestation]\nHashAlgorithm = "Sha384"\nPCR0 = "{"5a" * 48}"\n')
    with calling(name, server.url, toml, **options(server)) as made:
        assert made.call("/fine").status == 200


@every_transport
@pytest.mark.parametrize(
    "url",
    ["http://localhost", "localhost:8443", "https://", "https://u:p@localhost", "https://x/path"],
)
def test_a_url_that_is_no_enclave_is_an_error(name: str, url: str, server: EnclaveServer) -> None:
    with pytest.raises(UsageError):
        CLIENTS[name](url, RIGHT, **options(server))


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in {"socket", "streams"}])
def test_a_host_that_nobody_named_is_an_error(
    name: str, server: EnclaveServer, tmp_path: pathlib.Path
) -> None:
    """A socket is of its enclave: there is no other host to name."""
    with serving(server.module, tmp_path / "other") as other:
        server.redirect_to = f"{other.url}/moved"
        with calling(name, server.url, RIGHT, **options(server)) as made:
            with pytest.raises(PolicyError, match="refused to talk to"):
                made.call(f"{other.url}/direct")
            with pytest.raises(PolicyError, match="refused to talk to"):
                made.call(server.url.replace("https:", "http:"))
        # What follows a redirect is in tests/integration/test_client_connections.py.
        assert (other.connections, other.requests) == (0, [])


@every_transport
def test_a_policy_and_a_choice_beside_it_contradict_each_other(
    name: str, server: EnclaveServer
) -> None:
    policy = simulated.policy(server.module)
    for more in ({"dangerous_accept_debug": True}, {"trust_anchor": attest.TrustAnchor(b"0")}):
        with pytest.raises(UsageError):
            CLIENTS[name](server.url, policy, ca_file=server.ca_file, **more)
    with pytest.raises(UsageError):
        CLIENTS[name](server.url, RIGHT, pcr_provider=lambda: RIGHT)
    with pytest.raises(UsageError, match="freshness"):
        CLIENTS[name](server.url, policy, ca_file=server.ca_file, freshness="never")


@every_transport
def test_the_certificate_of_another_host_is_an_error(name: str, server: EnclaveServer) -> None:
    """A name that leads to the enclave and that its certificate does not have."""
    switch = Switch(server.url.removeprefix("https://"))
    with peer(switch.serve, ("127.0.0.2", 0)) as elsewhere:
        url = elsewhere.address.replace("tcp:", "https://")
        with (
            calling(name, url, RIGHT, **options(server)) as made,
            pytest.raises(Exception, match=r"127\.0\.0\.2"),
        ):
            made.call("/secret", b"secret")
    assert nothing_came(server)
    assert server.fetches == 0


def test_a_resumed_session_is_checked_like_any_other(server: EnclaveServer) -> None:
    """Its ticket proves that it talked to this enclave before, not that it is accepted today."""
    accepted: list[dict[str, str]] = [RIGHT]
    given = client.Enclave(server.url, pcr_provider=lambda: accepted, **options(server))
    with given, client.connect(given) as first:
        first.sendall(b"GET /one HTTP/1.1\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        with client.connect(given, resume=first) as second:
            assert second.session_reused
        accepted[0] = {"PCR0": "01" * 48}
        with pytest.raises(MeasurementMismatch):
            given.attestor.refresh()
        with pytest.raises(MeasurementMismatch):
            client.connect(given, resume=first)
    assert [path for path, _ in server.requests] == ["/one"]


def test_a_socket_without_the_ordinary_checks_is_an_error(server: EnclaveServer) -> None:
    """What is resumed brings its context along; one that checks nothing is refused."""
    lax = ssl.create_default_context()
    lax.check_hostname = False
    lax.verify_mode = ssl.CERT_NONE
    host, _, port = server.url.removeprefix("https://").partition(":")
    given = client.Enclave(server.url, RIGHT, **options(server))
    with (
        given,
        lax.wrap_socket(socket.create_connection((host, int(port)))) as unchecked,
        pytest.raises(TransportError, match="not verified"),
    ):
        client.connect(given, resume=unchecked)
    assert nothing_came(server)
