"""Attestation documents that say whatever a test wants, under a root that is kept nowhere."""

import dataclasses
import datetime as dt
import secrets
from collections.abc import Mapping
from typing import Any

from cloister import attest
from cloister._native import attest as _native
from cloister.attest.measurements import IDENTIFYING, PCR_BYTES, Measurements
from cloister.moments import to_ms

Registers = Measurements | Mapping[Any, str | bytes]
"""Registers by index or name, as :class:`cloister.attest.Measurements` takes them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A signed document, and what believes it.

    Args:
        raw: The ``COSE_Sign1``.
        trust_anchor: Its root.
        pcrs: The registers it shows.
    """

    raw: bytes = dataclasses.field(repr=False)
    trust_anchor: attest.TrustAnchor = dataclasses.field(repr=False)
    pcrs: Mapping[int, bytes] = dataclasses.field(repr=False)

    def policy(self, **changes: Any) -> attest.Policy:  # noqa: ANN401 - as attest.Policy has them
        """A policy that the document fulfils, but for ``changes``, as :class:`attest.Policy`'s.

        Raises:
            PolicyError: Its registers identify no code; say ``measurements``.
        """
        shown = {index: value for index, value in self.pcrs.items() if index in IDENTIFYING}
        settings = {"measurements": shown, "trust_anchor": self.trust_anchor, **changes}
        return attest.Policy(**settings)


class Root:
    """A root of attestation documents. Its key is in this object alone and goes with it."""

    def __init__(self) -> None:
        self.module = _native.SimulatedNsm(
            [], module_id=MODULE_ID, now_ms=to_ms(dt.datetime.now(dt.UTC))
        )
        self.trust_anchor = attest.TrustAnchor.dangerous_root_data(
            self.module.root_der, name="a test"
        )
        """What believes documents of this root."""

    @property
    def pem(self) -> str:
        """Its certificate, PEM: for ``--dangerous-root`` of the command line."""
        return self.module.root_pem


def document(  # noqa: PLR0913 - the fields of a document, by keyword
    *,
    pcrs: Registers | None = None,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    timestamp: dt.datetime | None = None,
    now: dt.datetime | None = None,
    module_id: str = "i-0123456789abcdef0-enc0123456789abcdef",
    root: Root | None = None,
) -> Document:
    """Signs a document that says whatever you like; the limits of a real NSM do not hold.

    Args:
        pcrs: The registers it shows. PCR 0 to 15 are zero where they are not named; without any
            named, PCR0, 1, 2 and 8 are ``a0a0…``, ``a1a1…``, ``a2a2…`` and ``a8a8…``.
        user_data: Bytes of the enclave's; of a TLS endpoint it is its ``SubjectPublicKeyInfo``.
        nonce: Bytes of the verifier's.
        public_key: A key of the enclave's.
        timestamp: When it says that it was made, with a time zone; ``now`` without.
        now: When its leaf certificate is valid, with a time zone; it lives three hours. The clock's
            time without.
        module_id: Id of the enclave.
        root: What it is signed under; without one, a root of its own.

    Raises:
        UsageError: ``now`` has no time zone, or ``timestamp`` has none.
        PolicyError: ``pcrs`` cannot be registers.
    """
    under = Root() if root is None else root
    issued_ms = to_ms(dt.datetime.now(dt.UTC) if now is None else now, name="`now`")
    says_ms = issued_ms if timestamp is None else to_ms(timestamp, name="`timestamp`")
    shown = {index: bytes(PCR_BYTES) for index in range(_LOCKED_AT_BOOT)} | registers(pcrs)
    raw = under.module.forge(
        now_ms=issued_ms,
        timestamp_ms=says_ms,
        module_id=module_id,
        pcrs=sorted(shown.items()),
        user_data=user_data,
        nonce=nonce,
        public_key=public_key,
    )
    return Document(raw=raw, trust_anchor=under.trust_anchor, pcrs=shown)


def registers(given: Registers | None) -> dict[int, bytes]:
    """Values by index; :data:`PCRS` for nothing."""
    if given is None:
        return dict(PCRS)
    measured = given if isinstance(given, Measurements) else Measurements(given)
    return dict(measured.registers)


def another_image(signed_as: Mapping[int, bytes]) -> dict[int, bytes]:
    """Registers of an image that nobody knows, signed with the key of a known one."""
    return {**signed_as, **{index: secrets.token_bytes(PCR_BYTES) for index in (0, 1, 2)}}


MODULE_ID = "i-cloister-testing"
PCRS: Mapping[int, bytes] = {index: bytes([0xA0 + index]) * PCR_BYTES for index in (0, 1, 2, 8)}
"""Registers where none are chosen. They are easy to see, and no image measures to them."""
_LOCKED_AT_BOOT = 16
