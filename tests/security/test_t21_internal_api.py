"""T-21: no document of an application passes for a TLS binding or a provisioning request.

The internal API of a running data plane is asked, as an application or a request forged through it
would; what it gives is genuine and is refused where it must be.
"""

import datetime as dt
import json
from collections.abc import Iterator

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.application import application

from cloister import attest, client
from cloister.dev import DataPlane
from cloister.errors import AttestationError, BindingMismatch


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with (
        application() as app,
        DataPlane(app.address, internal_api="127.0.0.1:0") as running,
    ):
        yield running


def policy(plane: DataPlane) -> attest.Policy:
    return attest.Policy(
        measurements=(),
        trust_anchor=attest.TrustAnchor.dangerous_root(plane.nsm_root_file),
        dangerous_accept_debug=True,
        dangerous_any_measurement=True,
    )


def verify(plane: DataPlane, document: bytes, **expected: bytes) -> attest.Claims:
    return attest.verify(document, policy(plane), now=dt.datetime.now(dt.UTC), **expected)


def ask(plane: DataPlane, body: bytes | dict[str, str], **headers: str) -> requests.Response:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    url = f"http://{plane.internal_api}/attestation-doc"
    return requests.post(url, data=data, headers=headers, timeout=10)


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    assert len(content) < 0x80
    return bytes([tag, len(content)]) + content


def textual_key(fill: str = "k") -> str:
    """An Ed25519 SubjectPublicKeyInfo that is also text."""
    algorithm = der(0x30, der(0x06, b"\x2b\x65\x70"))
    return der(0x30, algorithm, der(0x03, b"\x00", fill.encode() * 32)).decode()


def test_what_it_gives_is_a_genuine_document(plane: DataPlane) -> None:
    """The positive twin: without it, an API that refuses everything would pass below."""
    answer = ask(plane, {"challenge": "hello", "nonce": "once", "publicKey": "AQID"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/cbor"
    claims = verify(plane, answer.content, user_data=b"hello", nonce=b"once")
    assert claims.public_key == b"\x01\x02\x03"


def test_a_challenge_that_is_a_public_key_is_refused(plane: DataPlane) -> None:
    key = textual_key()
    refused = ask(plane, {"challenge": key})
    assert refused.status_code == 400
    assert "public key" in refused.json()["message"]
    assert ask(plane, {"challenge": key + "trailing"}).status_code == 400
    assert ask(plane, {"challenge": key[:-1]}).status_code == 200


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(text=st.text(max_size=120))
def test_no_text_gives_a_document_that_binds_a_tls_key(plane: DataPlane, text: str) -> None:
    """Whatever the text, the document carries exactly it, and never the key in use."""
    answer = ask(plane, {"challenge": text})
    if answer.status_code == 400:
        assert "refused" in answer.json()["message"]
        return
    claims = verify(plane, answer.content, user_data=text.encode())
    assert claims.user_data == text.encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"challenge":"\xffcloister/provision/v1"}',
        b'{"challenge":"\\u00ffcloister/provision/v1"}',
        b'{"challenge":"cloister/provision/v1"}',
        b'{"challenge":"\\udcffcloister/provision/v1"}',
    ],
)
def test_a_challenge_like_a_provisioning_request_is_refused(plane: DataPlane, body: bytes) -> None:
    assert ask(plane, body).status_code == 400
    assert ask(plane, b'{"challenge":"provision me"}').status_code == 200


def test_a_document_of_the_api_does_not_attest_a_connection(plane: DataPlane) -> None:
    """A client that is handed such a document in place of the endpoint's refuses the connection."""
    made = ask(plane, {"challenge": "hello"}).content
    spki_of_the_endpoint = attest.decode(_endpoint_document(plane)).user_data
    assert spki_of_the_endpoint is not None
    with pytest.raises(BindingMismatch):
        verify(plane, made, user_data=spki_of_the_endpoint)
    genuine = _endpoint_document(plane)
    verify(plane, genuine, user_data=spki_of_the_endpoint)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "[::1]", "10.0.0.1"]
)
def test_a_forged_request_under_another_name_is_refused(plane: DataPlane, host: str) -> None:
    """DNS rebinding: the page's own name resolves to 127.0.0.1."""
    assert ask(plane, {"challenge": "hello"}, Host=host).status_code == 403
    assert ask(plane, {"challenge": "hello"}, Host="localhost").status_code == 200


def test_the_registers_of_the_image_cannot_be_touched(plane: DataPlane) -> None:
    base = f"http://{plane.internal_api}/pcr"
    for index in (0, 1, 2, 3, 4, 8, 15):
        assert requests.post(f"{base}/{index}/extend", data=b"x", timeout=10).status_code == 403
        assert requests.post(f"{base}/{index}/lock", timeout=10).status_code == 403
    assert requests.post(f"{base}/20/extend", data=b"x", timeout=10).status_code == 200


def test_a_client_attests_the_connection_itself(plane: DataPlane) -> None:
    """The endpoint's document does bind the connection, for a client that accepts debug."""
    with client.Session(
        plane.url, policy(plane), ca_file=plane.ca_file, api_key=plane.api_key
    ) as session:
        assert session.get("/attested").json() == {"path": "/attested"}
    unforgiving = attest.Policy(
        measurements=({0: b"\x01" * 48},),
        trust_anchor=attest.TrustAnchor.dangerous_root(plane.nsm_root_file),
    )
    with (
        client.Session(
            plane.url, unforgiving, ca_file=plane.ca_file, api_key=plane.api_key
        ) as session,
        pytest.raises(AttestationError),
    ):
        session.get("/attested")


def _endpoint_document(plane: DataPlane) -> bytes:
    url = f"{plane.url}/.well-known/attestation"
    answer = requests.get(url, verify=str(plane.ca_file), timeout=10).json()
    return attest.from_text(answer["attestation_doc"].encode())
