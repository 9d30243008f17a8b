"""What a document says: proved (:class:`Claims`) or not (:class:`Decoded`)."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from cloister.moments import to_ms


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a document proved. Only :func:`cloister.attest.verify` makes it.

    Args:
        module_id: Id of the enclave: instance id and enclave id on Nitro.
        timestamp: When the document was made, by the hypervisor's clock.
        pcrs: The locked registers by index.
        public_key: A key of the enclave's choice.
        user_data: Bytes of the enclave's choice; the data plane puts its TLS key here.
        nonce: The verifier's nonce.
        is_debug: A debug enclave, which only a policy that asks for it accepts.
        certificate_not_after: When the certificate that signed the document expires.
    """

    module_id: str
    timestamp: dt.datetime
    pcrs: Mapping[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    is_debug: bool
    certificate_not_after: dt.datetime

    def as_dict(self) -> dict[str, Any]:
        """The claims with text in place of bytes and times, for JSON."""
        return {**_common(self), "certificate_not_after": _rfc3339(self.certificate_not_after)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodedCertificate:
    """One certificate of a document that nobody checked.

    Args:
        der: The certificate.
        not_before: First moment of its validity.
        not_after: Last moment of its validity.
    """

    der: bytes
    not_before: dt.datetime
    not_after: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a document says. **Nothing of it is checked but its form**: anybody can write this.

    Args:
        module_id: Id of the enclave, as it says.
        timestamp: When the document was made, as it says.
        pcrs: The registers by index, as it says.
        public_key: A key.
        user_data: Bytes.
        nonce: Bytes.
        is_debug: PCR0 is zero.
        certificates: Root first, leaf last.
    """

    module_id: str
    timestamp: dt.datetime
    pcrs: Mapping[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    is_debug: bool
    certificates: tuple[DecodedCertificate, ...]

    def as_dict(self) -> dict[str, Any]:
        """What it says with text in place of bytes and times, for JSON."""
        return {
            **_common(self),
            "certificates": [
                {
                    "not_before": _rfc3339(certificate.not_before),
                    "not_after": _rfc3339(certificate.not_after),
                    "der": certificate.der.hex(),
                }
                for certificate in self.certificates
            ],
        }


def _common(says: Claims | Decoded) -> dict[str, Any]:
    return {
        "module_id": says.module_id,
        "timestamp": _rfc3339(says.timestamp),
        "timestamp_ms": to_ms(says.timestamp),
        "debug": says.is_debug,
        "pcrs": {f"PCR{index}": value.hex() for index, value in sorted(says.pcrs.items())},
        "public_key": _hex(says.public_key),
        "user_data": _hex(says.user_data),
        "nonce": _hex(says.nonce),
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _rfc3339(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
