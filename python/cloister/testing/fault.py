"""The ways in which an enclave lets its clients down, each with the error that a client raises."""

import enum

from cloister.errors import (
    AttestationError,
    BadSignature,
    BindingMismatch,
    CloisterError,
    DebugEnclave,
    MalformedDocument,
    MeasurementMismatch,
    NonceMismatch,
    StaleDocument,
    TransportError,
    UntrustedChain,
)


class Fault(enum.Enum):
    """What is wrong with an enclave; see :meth:`cloister.testing.SimulatedEnclave.failing`."""

    BAD_SIGNATURE = "bad-signature"
    """The document was changed after it was signed."""
    DEBUG = "debug"
    """An enclave in debug mode: its PCRs are zero."""
    DOWN = "down"
    """Nobody listens. ``requests`` and ``httpx`` raise their own errors."""
    FROM_THE_FUTURE = "from-the-future"
    """The document was made an hour from now: clocks differ."""
    NOT_A_DOCUMENT = "not-a-document"
    """Bytes that are no attestation document."""
    NO_DOCUMENT = "no-document"
    """The NSM fails: ``/.well-known/attestation`` is a 503, the rest works."""
    OTHER_CA = "other-ca"
    """The TLS certificate is of another CA. ``requests`` and ``httpx`` raise their own errors."""
    OTHER_CODE = "other-code"
    """Another image: its PCR0, PCR1 and PCR2 are not the ones that are accepted."""
    OTHER_KEY = "other-key"
    """The document is bound to another TLS key: somebody between ends TLS."""
    OTHER_NONCE = "other-nonce"
    """A document made for somebody else; noticed with ``freshness="per-connection"`` alone."""
    OTHER_ROOT = "other-root"
    """The document is signed under another root."""
    STALE = "stale"
    """The document was made four hours ago."""

    @property
    def error(self) -> type[CloisterError]:
        """The class that :mod:`cloister.client` raises."""
        return _ERRORS[self]

    @property
    def is_proof(self) -> bool:
        """Whether the enclave answers and does not prove what it has to."""
        return issubclass(self.error, AttestationError)


_ERRORS: dict[Fault, type[CloisterError]] = {
    Fault.BAD_SIGNATURE: BadSignature,
    Fault.DEBUG: DebugEnclave,
    Fault.DOWN: TransportError,
    Fault.FROM_THE_FUTURE: StaleDocument,
    Fault.NOT_A_DOCUMENT: MalformedDocument,
    Fault.NO_DOCUMENT: TransportError,
    Fault.OTHER_CA: TransportError,
    Fault.OTHER_CODE: MeasurementMismatch,
    Fault.OTHER_KEY: BindingMismatch,
    Fault.OTHER_NONCE: NonceMismatch,
    Fault.OTHER_ROOT: UntrustedChain,
    Fault.STALE: StaleDocument,
}
