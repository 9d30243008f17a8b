"""A certificate authority that lives as long as this object, and TLS identities under it."""

import dataclasses
import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


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
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        root = self._issue(self._name, self._key.public_key(), is_ca=True)
        self.pem = root.public_bytes(serialization.Encoding.PEM)

    def identity(self, name: str = "enclave", *, hosts: Sequence[str] = ()) -> Identity:
        """A new key, certified for ``localhost``, ``127.0.0.1``, ``::1`` and these host names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issued = self._issue(subject, key.public_key(), is_ca=False, hosts=hosts)
        return Identity(
            certificate_pem=issued.public_bytes(serialization.Encoding.PEM),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            der=issued.public_bytes(serialization.Encoding.DER),
            spki=key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )

    def _issue(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        is_ca: bool,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        usage = _usage(is_ca=is_ca)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        if not is_ca:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            names = x509.SubjectAlternativeName([*_NAMES, *map(x509.DNSName, hosts)])
            builder = builder.add_extension(issuer, critical=False)
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_LIFE = dt.timedelta(days=7)  # longer than any test session
_NAMES = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)
