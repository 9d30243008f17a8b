"""Documents: verified by a policy, or decoded and not believed."""

import base64
import binascii
import datetime as dt
import types

from cloister._native import attest as _attest
from cloister.attest.claims import Claims, Decoded, DecodedCertificate
from cloister.attest.policy import Policy
from cloister.errors import MalformedDocument
from cloister.moments import from_ms, to_ms


def verify(
    document: bytes,
    policy: Policy,
    *,
    now: dt.datetime,
    nonce: bytes | None = None,
    user_data: bytes | None = None,
) -> Claims:
    """Verifies an attestation document and returns what it proves.

    Args:
        document: The ``COSE_Sign1`` as the NSM returned it, at most 16 KiB.
        policy: What is accepted.
        now: The verifier's time, with a time zone.
        nonce: The nonce that was sent; without one, any is accepted.
        user_data: What the document must be bound to: a TLS key's DER ``SubjectPublicKeyInfo``, or
            the caller's own bytes. Without it, the document proves nothing about a connection.

    Returns:
        What the document proved.

    Raises:
        UsageError: ``now`` has no time zone.
        MalformedDocument: Not an attestation document, or a field breaks a limit.
        UntrustedChain: The certificates do not lead to the policy's root at ``now``.
        BadSignature: Not signed by its leaf certificate.
        StaleDocument: Older than the policy's ``max_age``, or from the future.
        NonceMismatch: Another nonce, or none.
        DebugEnclave: PCR0 is zero.
        MeasurementMismatch: No accepted set matches.
        BindingMismatch: Other user data, or none.
    """
    found = _attest.verify(
        bytes(document),
        policy.native,
        now_ms=max(0, to_ms(now, name="`now`")),
        nonce=nonce,
        user_data=user_data,
    )
    return Claims(
        module_id=found["module_id"],
        timestamp=_moment(found["timestamp_ms"]),
        pcrs=types.MappingProxyType(found["pcrs"]),
        public_key=found["public_key"],
        user_data=found["user_data"],
        nonce=found["nonce"],
        is_debug=found["is_debug"],
        certificate_not_after=_moment(found["certificate_not_after_ms"]),
    )


def decode(document: bytes) -> Decoded:
    """Reads a document and believes nothing of it.

    Raises:
        MalformedDocument: The form is wrong, certificates included.
    """
    found = _attest.decode(bytes(document))
    return Decoded(
        module_id=found["module_id"],
        timestamp=_moment(found["timestamp_ms"]),
        pcrs=types.MappingProxyType(found["pcrs"]),
        public_key=found["public_key"],
        user_data=found["user_data"],
        nonce=found["nonce"],
        is_debug=found["is_debug"],
        certificates=tuple(
            DecodedCertificate(der=der, not_before=_moment(start), not_after=_moment(end))
            for der, start, end in found["certificates"]
        ),
    )


def from_text(data: bytes) -> bytes:
    """The document in ``data``: as it is when it is CBOR, else out of base64 or base64url.

    A document starts with a byte of a CBOR array or tag, which no base64 text does.

    Raises:
        MalformedDocument: Neither.
    """
    if data[:1] >= b"\x80":
        return data
    digits = b"".join(data.split()).translate(_URL_SAFE).rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise MalformedDocument(
            "not an attestation document: neither CBOR nor base64",
            hint="expected a COSE_Sign1 of an AWS Nitro Enclave, raw or in base64",
        ) from None


def subject_public_key_info(certificate: bytes) -> bytes:
    """The DER ``SubjectPublicKeyInfo`` of a DER certificate: what binds a document to a TLS key.

    Raises:
        ValueError: Not a certificate.
    """
    return _attest.subject_public_key_info(certificate)


def _moment(milliseconds: int) -> dt.datetime:
    """A time of the document; one beyond the calendar is its end, not a crash."""
    try:
        return from_ms(milliseconds)
    except OverflowError:
        return dt.datetime.max.replace(tzinfo=dt.UTC)


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
