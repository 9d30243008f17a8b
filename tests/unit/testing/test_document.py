"""Documents that say whatever a test wants."""

import datetime as dt

import pytest

from cloister import attest
from cloister.errors import (
    BindingMismatch,
    DebugEnclave,
    NonceMismatch,
    PolicyError,
    StaleDocument,
    UntrustedChain,
    UsageError,
)
from cloister.testing import Root, document

NOW = dt.datetime(2030, 5, 6, 7, 8, 9, tzinfo=dt.UTC)


def test_a_document_says_what_it_was_told_and_is_believed() -> None:
    made = document(
        pcrs={"PCR0": "12" * 48, 31: b"\x07" * 48},
        user_data=b"u" * 1024,
        nonce=b"n" * 16,
        public_key=b"k",
        timestamp=NOW - dt.timedelta(minutes=5),
        now=NOW,
        module_id="i-mine",
    )
    claims = attest.verify(made.raw, made.policy(), now=NOW, nonce=b"n" * 16)
    assert claims.module_id == "i-mine"
    assert claims.timestamp == NOW - dt.timedelta(minutes=5)
    assert (claims.user_data, claims.public_key) == (b"u" * 1024, b"k")
    assert (claims.pcrs[0], claims.pcrs[1], claims.pcrs[31]) == (
        b"\x12" * 48,
        bytes(48),
        b"\x07" * 48,
    )
    assert claims.pcrs == made.pcrs
    assert not claims.is_debug


def test_the_defaults_are_a_document_of_this_moment() -> None:
    made = document()
    now = dt.datetime.now(dt.UTC)
    claims = attest.verify(made.raw, made.policy(), now=now)
    assert abs(now - claims.timestamp) < dt.timedelta(minutes=1)
    assert (claims.user_data, claims.nonce, claims.public_key) == (None, None, None)
    assert claims.pcrs[8] == b"\xa8" * 48


def test_each_thing_that_is_wrong_is_refused() -> None:
    root = Root()
    good = document(root=root, now=NOW)
    policy = good.policy()
    attest.verify(good.raw, policy, now=NOW)
    old = document(root=root, now=NOW, timestamp=NOW - dt.timedelta(hours=4))
    with pytest.raises(StaleDocument):
        attest.verify(old.raw, policy, now=NOW)
    early = document(root=root, now=NOW, timestamp=NOW + dt.timedelta(minutes=2))
    with pytest.raises(StaleDocument):
        attest.verify(early.raw, policy, now=NOW)
    with pytest.raises(UntrustedChain):
        attest.verify(good.raw, policy, now=NOW + dt.timedelta(hours=4))
    with pytest.raises(UntrustedChain):
        attest.verify(document(now=NOW).raw, policy, now=NOW)
    with pytest.raises(NonceMismatch):
        attest.verify(good.raw, policy, now=NOW, nonce=b"n" * 16)
    with pytest.raises(BindingMismatch):
        attest.verify(good.raw, policy, now=NOW, user_data=b"spki")
    debug = document(root=root, now=NOW, pcrs={0: bytes(48)})
    with pytest.raises(DebugEnclave):
        attest.verify(debug.raw, debug.policy(), now=NOW)
    attest.verify(debug.raw, debug.policy(dangerous_accept_debug=True), now=NOW)


def test_a_time_without_a_zone_is_refused() -> None:
    local = NOW.replace(tzinfo=None)
    for wrong in ("now", "timestamp"):
        right = {"now": NOW, "timestamp": NOW}
        assert document(**right).raw
        with pytest.raises(UsageError, match=f"`{wrong}` has no time zone"):
            document(**(right | {wrong: local}))


def test_registers_that_are_none_are_refused() -> None:
    for wrong in ({"PCR99": "ab" * 48}, {"PCR0": "ab"}, {}):
        with pytest.raises(PolicyError):
            document(pcrs=wrong)
