"""The core alone: what it decides, what it asks, what it keeps. No clock, no socket, no thread."""

import datetime as dt

import pytest
from tests.support import simulated

from cloister import attest
from cloister.client.core import MAX_DOCUMENTS, Ask, Core
from cloister.errors import (
    BindingMismatch,
    MeasurementMismatch,
    NonceMismatch,
    PolicyError,
    StaleDocument,
    TransportError,
)
from cloister.moments import to_ms

KEY, OTHER = b"the key of a connection", b"the key of another one"
NOW = simulated.NOW
MODULE = simulated.nsm()
POLICY = simulated.policy(MODULE)


def document(spki: bytes = KEY, nonce: bytes | None = None) -> bytes:
    return MODULE.document(now_ms=to_ms(NOW), user_data=spki, nonce=nonce)


def begun(core: Core, spki: bytes = KEY, **changes: object) -> attest.Claims | Ask:
    given = {"policy": POLICY, "nonce": None, "now": NOW, **changes}
    return core.begin(spki, **given)  # type: ignore[arg-type]


def asked(core: Core, spki: bytes = KEY, **changes: object) -> Ask:
    found = begun(core, spki, **changes)
    assert isinstance(found, Ask)
    return found


def test_what_is_known_decides_at_once_and_the_rest_is_asked() -> None:
    core = Core()
    first = asked(core)
    assert isinstance(first.because, BindingMismatch)
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    assert not core.is_open(first)
    assert core.finish(first, document=None, policy=POLICY, now=NOW).user_data == KEY
    assert isinstance(begun(core), attest.Claims)
    assert isinstance(asked(core, OTHER).because, BindingMismatch)


def test_a_document_of_another_key_is_not_taken() -> None:
    core = Core()
    with pytest.raises(BindingMismatch):
        core.offer(document(OTHER), spki=KEY, policy=POLICY, now=NOW)
    ask = asked(core)
    with pytest.raises(BindingMismatch, match="keys with a document: none"):
        core.finish(ask, document=None, policy=POLICY, now=NOW)


def test_a_document_that_does_not_verify_replaces_none_that_did() -> None:
    core = Core()
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    forged = bytearray(document())
    forged[-1] ^= 1
    with pytest.raises(attest.BadSignature):
        core.offer(bytes(forged), spki=KEY, policy=POLICY, now=NOW)
    assert isinstance(begun(core), attest.Claims)


def test_without_measurements_there_is_nothing_to_decide() -> None:
    core = Core()
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    ask = asked(core, policy=None)
    assert ask.because is None
    with pytest.raises(PolicyError):
        core.finish(ask, document=None, policy=None, now=NOW)


def test_what_is_known_is_measured_against_the_policy_and_the_time_of_each_check() -> None:
    core = Core()
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    other = simulated.policy(MODULE, pcr0=b"\x01" * 48)
    assert isinstance(asked(core, policy=other).because, MeasurementMismatch)
    brief = attest.Policy(
        measurements=POLICY.measurements,
        trust_anchor=POLICY.trust_anchor,
        max_age=dt.timedelta(minutes=10),
        leeway=dt.timedelta(0),
    )
    # The last moment of its age, and the first one after it.
    end = NOW + dt.timedelta(minutes=10)
    assert isinstance(begun(core, policy=brief, now=end), attest.Claims)
    late = asked(core, policy=brief, now=end + dt.timedelta(milliseconds=1))
    assert isinstance(late.because, StaleDocument)


def test_a_nonce_asks_whatever_is_known_and_is_compared() -> None:
    core = Core()
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    mine, old = b"n" * 32, b"o" * 32
    ask = asked(core, nonce=mine)
    assert core.is_open(ask)
    core.finish(ask, document=document(nonce=mine), policy=POLICY, now=NOW)
    for wrong, error in (
        (document(nonce=old), NonceMismatch),
        (document(), NonceMismatch),
        (document(OTHER, nonce=mine), BindingMismatch),
    ):
        with pytest.raises(error):
            core.finish(ask, document=wrong, policy=POLICY, now=NOW)


def test_a_failure_is_for_all_who_had_asked_and_for_nobody_after_them() -> None:
    core = Core()
    waiting = [asked(core) for _ in range(3)]
    core.failed(TransportError("down", hint="wait"))
    seen = []
    for ask in waiting:
        assert not core.is_open(ask)
        with pytest.raises(TransportError, match="down") as raised:
            core.finish(ask, document=None, policy=POLICY, now=NOW)
        assert raised.value.hint == "wait"
        seen.append(raised.value)
    assert len(set(map(id, seen))) == 3
    later = asked(core)
    assert core.is_open(later)
    core.offer(document(), spki=KEY, policy=POLICY, now=NOW)
    core.finish(later, document=None, policy=POLICY, now=NOW)


def test_the_oldest_document_makes_room() -> None:
    core = Core()
    keys = [b"key %d" % number for number in range(MAX_DOCUMENTS + 1)]
    for key in keys:
        core.offer(document(key), spki=key, policy=POLICY, now=NOW)
    assert isinstance(begun(core, keys[0]), Ask)
    assert all(isinstance(begun(core, key), attest.Claims) for key in keys[1:])
