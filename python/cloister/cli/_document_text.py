"""An attestation document as people read it, with nothing of it believed.

All text in it is a stranger's: it is cut, and what a terminal would obey is taken out.
"""

import datetime as dt
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

from cryptography import x509

from cloister.attest import Decoded
from cloister.attest.claims import DecodedCertificate
from cloister.cli import params


def as_text(document: Decoded, *, now: dt.datetime) -> str:
    """The document for a person.

    Args:
        document: What it says.
        now: What its times are compared with.
    """
    return "\n".join(_lines(document, now))


def as_json(document: Decoded) -> dict[str, Any]:
    """The document for a program: its fields, and subject and issuer of each certificate."""
    said = document.as_dict()
    for entry, certificate in zip(said["certificates"], document.certificates, strict=True):
        subject, issuer = _names(certificate)
        digest = hashlib.sha256(certificate.der).hexdigest()
        entry.update({"subject": subject, "issuer": issuer, "sha256": digest})
    return said


def _lines(document: Decoded, now: dt.datetime) -> Iterator[str]:
    yield f"module       {params.printable(document.module_id)}"
    yield f"made         {_moment(document.timestamp)}, {_since(document.timestamp, now)}"
    if document.is_debug:
        yield "debug        yes: PCR0 is zero, so it says nothing about the code"
    else:
        yield "debug        no"
    yield f"user data    {_octets(document.user_data)}"
    yield f"nonce        {_octets(document.nonce)}"
    yield f"public key   {_octets(document.public_key)}"
    yield ""
    yield from _registers(document)
    yield ""
    yield "certificates, from the root to the one that signed:"
    for position, certificate in enumerate(document.certificates, start=1):
        yield from _certificate(position, certificate, now)


def _registers(document: Decoded) -> Iterator[str]:
    zero: list[int] = []
    for index, value in sorted(document.pcrs.items()):
        if any(value) or index in _MEANINGS:
            meaning = _MEANINGS.get(index, "the application's own" if index >= FREE else "reserved")
            yield f"PCR{index:<2} {value.hex()}  {meaning}{'' if any(value) else ' (zero)'}"
        else:
            zero.append(index)
    if zero:
        yield f"zero: {', '.join(_ranges(zero))}"


def _ranges(indexes: list[int]) -> Iterator[str]:
    """``PCR5-7`` for neighbors, ``PCR9`` for one alone; ``indexes`` ascend."""
    start = indexes[0]
    for index, following in itertools.pairwise([*indexes, -1]):
        if following != index + 1:
            yield f"PCR{start}" if start == index else f"PCR{start}-{index}"
            start = following


def _certificate(position: int, certificate: DecodedCertificate, now: dt.datetime) -> Iterator[str]:
    subject, issuer = _names(certificate)
    digest = hashlib.sha256(certificate.der).hexdigest()
    yield f"{position}  {subject}"
    if issuer == subject:
        is_pinned = digest == AWS_ROOT_SHA256
        yield f"   its own issuer{': the root of AWS that is pinned here' if is_pinned else ''}"
    else:
        yield f"   issued by {issuer}"
    start, end = certificate.not_before, certificate.not_after
    if now < start:
        state = f"valid {_since(start, now)}"
    elif now > end:
        state = f"expired {_since(end, now)}"
    else:
        state = f"expires {_since(end, now)}"
    yield f"   {_moment(start)} to {_moment(end)}, {state}"
    yield f"   SHA-256 {digest}"


def _names(certificate: DecodedCertificate) -> tuple[str, str]:
    """Subject and issuer (RFC 4514); a stranger's certificate may have names that are none."""
    try:
        read = x509.load_der_x509_certificate(certificate.der)
        names = read.subject.rfc4514_string(), read.issuer.rfc4514_string()
    except (ValueError, TypeError):
        return UNREADABLE, UNREADABLE
    subject, issuer = (
        params.without_controls(name[:MAX_NAME]) + ("…" if len(name) > MAX_NAME else "")
        for name in names
    )
    return subject, issuer


def _octets(value: bytes | None) -> str:
    if value is None:
        return "-"
    return f"{len(value)} bytes{f': {value.hex()}' if value else ''}"


def _moment(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _since(moment: dt.datetime, now: dt.datetime) -> str:
    """``3 h ago`` or ``in 3 h``: the largest unit that is there once, cut."""
    seconds = int((now - moment).total_seconds())
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            amount = f"{abs(seconds) // length} {unit}"
            break
    else:
        amount = f"{abs(seconds)} s"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


_MEANINGS = {
    0: "image",
    1: "kernel and boot ramdisk",
    2: "application",
    3: "IAM role of the parent instance",
    4: "id of the parent instance",
    8: "certificate that signed the image",
}
"""Of the registers that Nitro sets (Nitro Enclaves user guide, "Set up attestation")."""

FREE = 16
"""The first register that an application may extend."""

AWS_ROOT_SHA256 = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
"""Of the DER of the root (nsm-api, attestation_process.md 3.1)."""

MAX_NAME = 200
UNREADABLE = "a name that cannot be read"
