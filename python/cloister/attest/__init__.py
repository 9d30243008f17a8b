"""Verify attestation documents of Nitro Enclaves, genuine and simulated.

:func:`verify` returns :class:`Claims` or raises an
:class:`~cloister.errors.AttestationError`; it never returns a bool or a part of a result. What is
accepted is a :class:`Policy`, checked when it is made; one without measurements cannot be made. The
work is done in Rust, in one function for every trust anchor. Fetching documents is
:mod:`cloister.client`'s.
"""

from cloister.attest.claims import Claims, Decoded, DecodedCertificate
from cloister.attest.document import decode, from_text, subject_public_key_info, verify
from cloister.attest.measurements import IDENTIFYING, Measurements
from cloister.attest.policy import Accepted, Policy
from cloister.attest.trust_anchor import TrustAnchor
from cloister.errors import (
    AttestationError,
    BadSignature,
    BindingMismatch,
    DebugEnclave,
    MalformedDocument,
    MeasurementMismatch,
    NonceMismatch,
    PolicyError,
    StaleDocument,
    UntrustedChain,
)

__all__ = [
    "IDENTIFYING",
    "Accepted",
    "AttestationError",
    "BadSignature",
    "BindingMismatch",
    "Claims",
    "DebugEnclave",
    "Decoded",
    "DecodedCertificate",
    "MalformedDocument",
    "MeasurementMismatch",
    "Measurements",
    "NonceMismatch",
    "Policy",
    "PolicyError",
    "StaleDocument",
    "TrustAnchor",
    "UntrustedChain",
    "decode",
    "from_text",
    "subject_public_key_info",
    "verify",
]
