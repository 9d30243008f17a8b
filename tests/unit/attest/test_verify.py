"""Verification over the boundary: each refusal is its class, says what to do, and has a twin."""

import base64
import dataclasses
import datetime as dt
import threading

import pytest
from tests.support.simulated import NOW, PCR0, PCR8, anchor, nsm, policy

from cloister import attest
from cloister.errors import CloisterError, PolicyError, UsageError
from cloister.moments import to_ms

MODULE = nsm(now=NOW - dt.timedelta(minutes=10))
POLICY = policy(MODULE)
DOCUMENT = MODULE.document(now_ms=to_ms(NOW), user_data=b"spki", nonce=b"n" * 32)
STRICT = attest.Policy(
    measurements={0: PCR0}, trust_anchor=anchor(MODULE), max_age=dt.timedelta(minutes=5)
)
PRODUCTION = attest.Policy(measurements={0: PCR0})


def test_the_claims_are_all_there() -> None:
    claims = attest.verify(DOCUMENT, POLICY, now=NOW, nonce=b"n" * 32, user_data=b"spki")
    assert claims.module_id == "i-test-enc1"
    assert claims.timestamp == NOW
    assert (claims.pcrs[0], claims.pcrs[8]) == (PCR0, PCR8)
    assert (claims.user_data, claims.nonce, claims.public_key) == (b"spki", b"n" * 32, None)
    assert claims.certificate_not_after == NOW + dt.timedelta(hours=2, minutes=50)
    assert not claims.is_debug
    with pytest.raises(dataclasses.FrozenInstanceError):
        claims.module_id = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        claims.pcrs[0] = b""  # type: ignore[index]


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (attest.MalformedDocument, {"document": DOCUMENT[:-1]}),
        (attest.MalformedDocument, {"document": b""}),
        (attest.UntrustedChain, {"policy": PRODUCTION}),
        (attest.UntrustedChain, {"policy": policy(nsm())}),
        (attest.UntrustedChain, {"now": NOW + dt.timedelta(hours=4)}),
        (attest.BadSignature, {"document": DOCUMENT[:-1] + bytes([DOCUMENT[-1] ^ 1])}),
        (attest.StaleDocument, {"policy": STRICT, "now": NOW + dt.timedelta(minutes=5, seconds=1)}),
        (attest.StaleDocument, {"now": NOW - dt.timedelta(seconds=61)}),
        (attest.NonceMismatch, {"nonce": b"m" * 32}),
        (attest.MeasurementMismatch, {"policy": policy(MODULE, pcr0=b"\x01" * 48)}),
        (attest.BindingMismatch, {"user_data": b"other"}),
    ],
)
def test_each_refusal_has_its_class_and_a_hint(
    error: type[attest.AttestationError], change: dict[str, object]
) -> None:
    arguments = {
        "document": DOCUMENT,
        "policy": POLICY,
        "now": NOW,
        "nonce": b"n" * 32,
        "user_data": b"spki",
    }
    attest.verify(**arguments)  # type: ignore[arg-type]  # else a refusal means nothing
    with pytest.raises(CloisterError) as caught:
        attest.verify(**(arguments | change))  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert caught.value.hint
    assert str(caught.value) == caught.value.message


def test_a_debug_enclave_is_accepted_by_name_alone() -> None:
    module = nsm(pcr0=bytes(48))
    document = module.document(now_ms=to_ms(NOW))
    strict = attest.Policy(dangerous_any_measurement=True, trust_anchor=anchor(module))
    with pytest.raises(attest.DebugEnclave, match="PCR0 is zero"):
        attest.verify(document, strict, now=NOW)
    lax = attest.Policy(
        dangerous_any_measurement=True, dangerous_accept_debug=True, trust_anchor=anchor(module)
    )
    assert attest.verify(document, lax, now=NOW).is_debug


def test_a_mismatch_prints_each_register() -> None:
    two = attest.Policy(
        measurements=[{0: b"\x01" * 48, 8: PCR8}, {1: b"\x02" * 48}], trust_anchor=anchor(MODULE)
    )
    with pytest.raises(attest.MeasurementMismatch) as caught:
        attest.verify(DOCUMENT, two, now=NOW)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert f"PCR0 expected {'01' * 48}" in lines
    assert f"PCR0 received {PCR0.hex()}" in lines
    assert f"PCR8 matches {PCR8.hex()}" in lines
    assert f"PCR1 expected {'02' * 48}" in lines


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone"):
        attest.verify(DOCUMENT, POLICY, now=NOW.replace(tzinfo=None))


def test_text_forms_are_read() -> None:
    plain = base64.b64encode(DOCUMENT)
    wrapped = base64.encodebytes(DOCUMENT)
    url = base64.urlsafe_b64encode(DOCUMENT).rstrip(b"=")
    for text in (DOCUMENT, plain, wrapped, url):
        assert attest.from_text(text) == DOCUMENT
    with pytest.raises(attest.MalformedDocument, match="base64"):
        attest.from_text(b"{}")


@pytest.mark.parametrize(
    "measurements",
    [(), [], {}, [{}], "5a" * 48, 7, {"PCR4": "5a" * 48}, {"PCRO": "5a" * 48}, [7]],
    ids=repr,
)
def test_a_policy_that_accepts_anything_cannot_be_made(measurements: object) -> None:
    with pytest.raises(PolicyError):
        attest.Policy(measurements=measurements)  # type: ignore[arg-type]


def test_names_and_cases_of_registers() -> None:
    for name in (0, "0", "PCR0", "pcr0", "pcr_0", "PCR_0"):
        for value in (PCR0, PCR0.hex(), PCR0.hex().upper()):
            assert attest.Measurements({name: value}).registers == {0: PCR0}
    for name in ("PCR", "PCR32", -1, 32, True, "PCR-1", "PCR 0", "PCR٣", None, 0.0):
        with pytest.raises(PolicyError, match="unknown register"):
            attest.Measurements({name: PCR0})


def test_limits_of_a_policy() -> None:
    with pytest.raises(PolicyError, match="max_age"):
        attest.Policy(measurements={0: PCR0}, max_age=dt.timedelta(0))
    with pytest.raises(PolicyError, match="leeway"):
        attest.Policy(measurements={0: PCR0}, leeway=dt.timedelta(seconds=-1))
    with pytest.raises(PolicyError, match="leeway"):
        attest.Policy(measurements={0: PCR0}, leeway=dt.timedelta(hours=2))
    with pytest.raises(PolicyError, match="cannot accept any"):
        attest.Policy(measurements={0: PCR0}, dangerous_any_measurement=True)
    with pytest.raises(PolicyError, match="root"):
        attest.Policy(
            measurements={0: PCR0}, trust_anchor=attest.TrustAnchor(dangerous_der=b"\x30\x00")
        )


def test_equal_policies_are_equal() -> None:
    one, two = (attest.Policy(measurements={"PCR0": PCR0.hex()}) for _ in range(2))
    assert one == two
    assert len({one, two}) == 1


def test_the_interpreter_is_free_while_a_document_is_verified() -> None:
    """Threads verify at once and get what they would get alone."""
    results: list[str] = []

    def work() -> None:
        results.extend(attest.verify(DOCUMENT, POLICY, now=NOW).module_id for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert results == ["i-test-enc1"] * 80


def test_the_key_of_a_certificate() -> None:
    decoded = attest.decode(DOCUMENT)
    leaf = decoded.certificates[-1].der
    info = attest.subject_public_key_info(leaf)
    assert info in leaf
    assert len(info) == 120  # P-384
    with pytest.raises(ValueError, match="certificate"):
        attest.subject_public_key_info(leaf[:-1])
