"""A certificate authority that lives as long as this object, and TLS identities under it."""

import dataclasses
import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.tls_authority import TlsAuthority, private_key_pem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A TLS key and the certificate over it.

    Args:
        certificate_pem: The certificate.
        key_pem: The key, PKCS #8.
        der: The certificate, DER.
        spki: Its ``SubjectPublicKeyInfo``, DER: what documents are bound to.
    """

    certificate_pem: bytes
    key_pem: bytes = dataclasses.field(repr=False)
    der: bytes
    spki: bytes


class Authority:
    """A CA whose key is kept nowhere.

    Args:
        name: Common name of it.
    """

    def __init__(self, name: str = "cloister.testing") -> None:
        now = dt.datetime.now(dt.UTC)
        self._tls = TlsAuthority.new(name, not_before=now - _SKEW, not_after=now + _LIFE)
        self.pem = self._tls.certificate.public_bytes(serialization.Encoding.PEM)

    def identity(self, name: str = "enclave", *, hosts: Sequence[str] = ()) -> Identity:
        """A new key, certified for ``localhost``, ``127.0.0.1``, ``::1`` and these host names."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        issued = self._tls.issue(
            key.public_key(),
            [*_NAMES, *map(x509.DNSName, hosts)],
            name=name,
            not_before=now - _SKEW,
            not_after=now + _LIFE,
        )
        return Identity(
            certificate_pem=issued.public_bytes(serialization.Encoding.PEM),
            key_pem=private_key_pem(key),
            der=issued.public_bytes(serialization.Encoding.DER),
            spki=key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )


_LIFE = dt.timedelta(days=7)  # longer than any test session
_SKEW = dt.timedelta(hours=1)  # a client whose clock is behind
_NAMES = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)
