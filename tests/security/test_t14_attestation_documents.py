"""T-14: hostile documents are refused on every code path, with no partial result and no panic.

Forged, expired, re-signed, NitroTPM, debug, foreign-root, truncated, duplicate-key, deeply nested
and high-count documents; a document of another TLS key; a cached one after a key change. The paths
are the verifier, the decoder and the session; each negative stands beside the twin that is
accepted. The exhaustive ones, byte by byte and rule by rule of the chain, are in
``rust/attestation/tests``.
"""

import datetime as dt
import pathlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import simulated
from tests.support.enclave_server import EnclaveServer, serving
from tests.support.simulated import NOW

from cloister import attest, client
from cloister.errors import AttestationError, BindingMismatch, MalformedDocument
from cloister.moments import to_ms

GENUINE = (simulated.VECTORS / "2025-11-10_prod_mystenlabs_8e5652f3.cbor").read_bytes()
GENUINE_AT = attest.decode(GENUINE).timestamp
ANY = attest.Policy(dangerous_any_measurement=True)

MODULE = simulated.nsm()
POLICY = simulated.policy(MODULE)
DOCUMENT = MODULE.document(now_ms=to_ms(NOW), user_data=b"spki")


@given(at=st.integers(0, len(GENUINE) - 1), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_of_a_genuine_document_is_refused(at: int, bit: int) -> None:
    attest.verify(GENUINE, ANY, now=GENUINE_AT)
    forged = bytearray(GENUINE)
    forged[at] ^= 1 << bit
    with pytest.raises(AttestationError):
        attest.verify(bytes(forged), ANY, now=GENUINE_AT)


@given(length=st.integers(0, len(DOCUMENT) - 1))
@settings(max_examples=200, deadline=None)
def test_a_truncated_document_is_refused(length: int) -> None:
    attest.verify(DOCUMENT, POLICY, now=NOW)
    with pytest.raises(MalformedDocument):
        attest.verify(DOCUMENT[:length], POLICY, now=NOW)


@given(st.binary(max_size=512))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_without_a_panic(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        attest.verify(data, ANY, now=NOW)
    with pytest.raises(MalformedDocument):
        attest.decode(data)


def rename(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda document: document.replace(old, new, 1)


@pytest.mark.parametrize(
    "change",
    [
        rename(b"\x64pcrs", b"\x6dnitrotpm_pcrs"),
        rename(b"\x65nonce", b"\x69module_id"),
        rename(b"\x65nonce\xf6", b"\x65nonce" + b"\x81" * 4000),
        rename(b"\x68cabundle\x84", b"\x68cabundle\x9a\xff\xff\xff\xff"),
        rename(b"\x64pcrs\xb0", b"\x64pcrs\xbb" + b"\xff" * 8),
        lambda document: document + b"\x00",
        lambda document: b"\xd2\xd2" + document,
        lambda document: document[:6] + b"\xa1\x01\x38\x22" + document[7:],
        lambda document: b"\x00" * 20_000 + document,
    ],
    ids=[
        "nitrotpm",
        "duplicate key",
        "nested",
        "certificate count",
        "register count",
        "trailing byte",
        "two tags",
        "unprotected header",
        "too long",
    ],
)
def test_a_document_of_a_wrong_shape_is_refused(change: Callable[[bytes], bytes]) -> None:
    attest.verify(DOCUMENT, POLICY, now=NOW)
    forged = change(DOCUMENT)
    assert forged != DOCUMENT
    for refuse in (lambda: attest.verify(forged, POLICY, now=NOW), lambda: attest.decode(forged)):
        with pytest.raises(MalformedDocument):
            refuse()


def test_a_foreign_root_is_refused_both_ways() -> None:
    attest.verify(DOCUMENT, POLICY, now=NOW)
    attest.verify(GENUINE, ANY, now=GENUINE_AT)
    with pytest.raises(attest.UntrustedChain):
        attest.verify(DOCUMENT, ANY, now=NOW)
    under_ours = attest.Policy(
        dangerous_any_measurement=True, trust_anchor=simulated.anchor(MODULE)
    )
    with pytest.raises(attest.UntrustedChain):
        attest.verify(GENUINE, under_ours, now=GENUINE_AT)


@pytest.mark.parametrize("after", [dt.timedelta(hours=4), dt.timedelta(days=-1)])
def test_an_expired_or_future_document_is_refused(after: dt.timedelta) -> None:
    attest.verify(GENUINE, ANY, now=GENUINE_AT)
    with pytest.raises(attest.UntrustedChain):
        attest.verify(GENUINE, ANY, now=GENUINE_AT + after)


def request(enclave: EnclaveServer, **options: object) -> None:
    with client.Session(
        enclave.url,
        simulated.policy(enclave.module),
        ca_file=enclave.ca_file,
        timeout=5.0,
        **options,  # type: ignore[arg-type]
    ) as http:
        http.post("/secret", data=b"plaintext")


@pytest.mark.parametrize("freshness", ["cached", "per-connection"])
def test_a_session_sends_nothing_on_a_bad_document(tmp_path: pathlib.Path, freshness: str) -> None:
    module = simulated.nsm(now=dt.datetime.now(dt.UTC))
    with serving(module, tmp_path / "enclave") as enclave:
        genuine = enclave.documents
        other_key = enclave.spki
        enclave.new_key()

        def forged(spki: bytes, nonce: bytes | None) -> bytes:
            document = bytearray(genuine(spki, nonce))
            document[len(document) // 2] ^= 1
            return bytes(document)

        for documents in (
            forged,
            lambda _spki, nonce: genuine(other_key, nonce),
            lambda spki, nonce: genuine(spki, nonce)[:-1],
            lambda _spki, _nonce: GENUINE,
        ):
            enclave.documents = documents
            with pytest.raises(AttestationError):
                request(enclave, freshness=freshness)
        assert (enclave.requests, enclave.request_bytes) == ([], 0)
        enclave.documents = genuine
        request(enclave, freshness=freshness)
        assert len(enclave.requests) == 1


def test_a_cached_document_ends_with_its_key(tmp_path: pathlib.Path) -> None:
    """A server with another key, under the same name and CA, serves the old key's document."""
    module = simulated.nsm(now=dt.datetime.now(dt.UTC))
    with serving(module, tmp_path / "enclave") as enclave:
        enclave.closes_after_answer = True
        with client.Session(
            enclave.url, simulated.policy(module), ca_file=enclave.ca_file, timeout=5.0
        ) as http:
            http.get("/one")
            old = enclave.genuine(enclave.spki, None)
            enclave.new_key()
            enclave.documents = lambda _spki, _nonce: old
            with pytest.raises(BindingMismatch):
                http.get("/two")
        assert [path for path, _ in enclave.requests] == ["/one"]
